"""What the Concept page does in the browser: fields that know their value, and folders that can be dropped."""

# Gradio sets a field anew only where its `value` attribute changes, so a typed caption has to be noted there too.
# Its upload takes files but no folders: those are opened here, and their files handed to it.
# A caption is written when its field is left: before that the browser asks whether the page may go.
# What is left as it was entered is not written: another browser tab may have changed it meanwhile.
LEFT = "(where, slug, word, ...looked) => [where, slug, word === window.triggerWordEntered ? null : word, ...looked]"
SCRIPT = """
document.addEventListener('change', (event) => {
  if (event.target.matches('#page-concept .dr-caption')) event.target.setAttribute('value', event.target.value);
}, true);
window.addEventListener('beforeunload', (event) => {
  const field = document.activeElement;
  const typed = field?.matches('#page-concept .dr-caption') && field.value !== (field.getAttribute('value') ?? '');
  if (typed) event.preventDefault();
});
document.addEventListener('focusin', (event) => {
  if (event.target.matches('#page-concept .dr-trigger textarea, #page-concept .dr-trigger input')) {
    window.triggerWordEntered = event.target.value;
  }
});
const filesIn = async (entry) => {
  if (entry.isFile) return [await new Promise((found, failed) => entry.file(found, failed))];
  const reader = entry.createReader();
  const all = [];
  for (;;) {
    const some = await new Promise((found, failed) => reader.readEntries(found, failed));
    if (!some.length) break;
    for (const one of some) if (!one.name.startsWith('.')) all.push(...await filesIn(one));
  }
  return all;
};
document.addEventListener('drop', async (event) => {
  const place = event.target.closest('#page-concept .dr-drop');
  const input = place?.querySelector('input[type=file]');
  const entries = [...(event.dataTransfer?.items || [])].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!input || !entries.some((entry) => entry.isDirectory)) return;
  event.preventDefault();
  event.stopPropagation();
  const handed = new DataTransfer();
  for (const entry of entries) for (const file of await filesIn(entry)) handed.items.add(file);
  input.files = handed.files;
  input.dispatchEvent(new Event('change', {bubbles: true}));
}, true);
"""
