//! A terminal that shows one screen in place: taken over by [`Screen::take`], given back however that ends.

use std::io::{self, IsTerminal as _, Read as _, Write as _};

use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use tokio::sync::mpsc;

/// The alternate screen, without a cursor, without wrapping.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Keys that wait to be looked at.
const KEYS: usize = 16;

/// Where a window's size cannot be had.
const USUAL: (usize, usize) = (80, 24);

/// The terminal on standard output, with the keys of standard input. Dropping it gives the terminal back as it was.
pub(super) struct Screen {
    /// What standard input was like; `None`: it is no terminal.
    before: Option<Termios>,
}

impl Screen {
    /// Whether there is a terminal to show anything in place on.
    pub(super) fn is_possible() -> bool {
        io::stdout().is_terminal()
    }

    /// Takes the terminal over.
    pub(super) fn take() -> io::Result<Self> {
        let input = rustix::stdio::stdin();
        let before = if termios::isatty(input) { Some(termios::tcgetattr(input)?) } else { None };
        // From here on dropping it mends whatever of this was done.
        let screen = Self { before };
        if let Some(before) = &screen.before {
            let mut modes = before.clone();
            // Keys come at once, unseen. Ctrl-C and Ctrl-Z are keys too: no signal leaves the screen taken.
            modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
            termios::tcsetattr(input, OptionalActions::Now, &modes)?;
        }
        write(ENTER)?;
        Ok(screen)
    }

    /// The keys, as they come. Only once: nobody else may read standard input meanwhile.
    pub(super) fn keys(&self) -> mpsc::Receiver<u8> {
        let (sender, receiver) = mpsc::channel(KEYS);
        if self.before.is_some() {
            // A thread of its own: what waits for a key can only be ended with the process.
            std::thread::spawn(move || {
                for key in io::stdin().lock().bytes().map_while(Result::ok) {
                    if sender.blocking_send(key).is_err() {
                        return;
                    }
                }
            });
        }
        receiver
    }

    /// Shows a text from the upper left corner on; what has no room is cut off.
    pub(super) fn show(&self, text: &str) -> io::Result<()> {
        write(&framed(text, size()))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = write(LEAVE);
        if let Some(before) = &self.before {
            let _ = termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Columns and rows.
fn size() -> (usize, usize) {
    match termios::tcgetwinsize(rustix::stdio::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => USUAL,
    }
}

/// One write of a whole screen; each line clears what was behind it, so that nothing flickers. The third line is a heading.
fn framed(text: &str, (columns, rows): (usize, usize)) -> String {
    const HEADING: usize = 2;
    let mut frame = String::from("\x1b[H");
    let lines: Vec<&str> = text.lines().take(rows).collect();
    for (index, line) in lines.iter().enumerate() {
        let line: String = line.chars().filter(|it| !it.is_control()).take(columns).collect();
        if index == HEADING {
            frame.push_str(&format!("\x1b[7m{line:columns$}\x1b[0m"));
        } else {
            frame.push_str(&line);
        }
        frame.push_str(if index + 1 == lines.len() { "\x1b[K" } else { "\x1b[K\r\n" });
    }
    frame.push_str("\x1b[J");
    frame
}

fn write(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_the_window_and_lets_no_control_through() {
        let frame = framed("one\ntwo\nthree\x1b[2J\nfour", (4, 3));
        assert_eq!(frame, "\x1b[Hone\x1b[K\r\ntwo\x1b[K\r\n\x1b[7mthre\x1b[0m\x1b[K\x1b[J");
    }
}
