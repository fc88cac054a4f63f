// A file made on demand comes as text inside the page ({name, uri}) and is handed to the reader; the server keeps nothing of it.
watch('value', async () => {
  const file = props.value;
  if (!file?.uri) return;
  const link = document.createElement('a');
  link.href = URL.createObjectURL(await (await fetch(file.uri)).blob());
  link.download = file.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
});
