// The tab keeps the visitor's token, for when the page is loaded again; who came back is shown what was here before.
let token = '';
const meet = () => {
  if (!props.value?.token) return;
  token = props.value.token;
  try { sessionStorage.setItem('msmedcap-visitor', token); } catch { /* storage is forbidden: the page works, and forgets on reload */ }
  if (props.value.back) trigger('come_back', {});
};
watch('value', meet);
meet();
const wake = () => { if (token && document.visibilityState === 'visible') trigger('wake', {token}); };
document.addEventListener('visibilitychange', wake);
window.addEventListener('online', wake);
