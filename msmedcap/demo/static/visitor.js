// The tab keeps the visitor's token, for when the page is loaded again; who came back is shown what was here before.
const meet = () => {
  const {token, back} = props.value ?? {};
  if (!token) return;
  try { sessionStorage.setItem('msmedcap-visitor', token); } catch { /* storage is forbidden: the page works, and forgets on reload */ }
  if (back) trigger('come_back', {});
};
watch('value', meet);
meet();
