// Buttons with [data-copy] put a text into the clipboard, also where the browser has no clipboard for pages.
element.addEventListener('click', async (event) => {
  const target = event.target.closest('[data-copy]');
  if (!target) return;
  const words = target.dataset.copy, label = target.textContent;
  try {
    await navigator.clipboard.writeText(words);
  } catch {
    const field = document.createElement('textarea');
    field.value = words;
    document.body.append(field);
    field.select();
    document.execCommand('copy');
    field.remove();
    target.focus();
  }
  target.textContent = 'Copied';
  setTimeout(() => { target.textContent = label; }, 1500);
});
