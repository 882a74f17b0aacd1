// Gradio's text fields tell of a change that a key makes which gives a letter, and of no other: what is deleted, cut,
// pasted or composed (as Chinese is) is told here as if such a key had been pressed.
document.addEventListener('input', ({target, inputType}) => {
  if (inputType === 'insertText' || !target.matches('textarea, input[type=text], input:not([type])')) return;
  target.dispatchEvent(new KeyboardEvent('keypress', {bubbles: true}));
});
