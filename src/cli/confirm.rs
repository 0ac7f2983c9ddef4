//! Questions to the person at the terminal.

use std::io::{self, BufRead as _, IsTerminal as _};

use super::output::{Console, Exit, Failure};

/// Asks whether to write what was shown. Without a terminal, `--yes` is the only answer.
pub(super) fn ask_to_write(console: &Console) -> Result<(), Failure> {
    let unasked = Failure::new(
        Exit::Usage,
        "would modify existing files, and there is no terminal to ask on",
    )
    .with_help("use `--yes` to apply or `--dry-run` to preview");
    ask("Write these changes? [y/N]", unasked, console)
}

/// Asks `question`, which `y` or `yes` confirms. Fails with `unasked` without a terminal.
pub(super) fn ask(question: &str, unasked: Failure, console: &Console) -> Result<(), Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() || !io::stderr().is_terminal() {
        return Err(unasked);
    }
    console.say(question);
    let mut answer = String::new();
    match stdin.lock().read_line(&mut answer) {
        Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::new(Exit::No, "nothing was written")),
    }
}
