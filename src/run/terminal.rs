//! Which signals a terminal sends to us and the application alike, both being its foreground (termios(3), ISIG).

use rustix::process::Signal;

/// What a terminal sends to its whole foreground process group: by Ctrl-C, by Ctrl-\, and when its size changes.
const FROM_TERMINALS: [Signal; 3] = [Signal::INT, Signal::QUIT, Signal::WINCH];

/// Whether the application has got the signal that we got, so that it must not get it from us again. The application is in
/// our process group; while that is a terminal's foreground, such signals are taken to be the terminal's.
pub fn has_heard(signal: Signal) -> bool {
    FROM_TERMINALS.contains(&signal)
        && std::fs::read_to_string("/proc/self/stat").is_ok_and(|stat| is_foreground(&stat).unwrap_or(false))
}

/// Whether a process is in the foreground of a terminal, by its `/proc/…/stat` (proc(5)).
fn is_foreground(stat: &str) -> Option<bool> {
    // The name before it may hold anything, but ends with the last parenthesis.
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(2);
    let group: i32 = fields.next()?.parse().ok()?;
    let mut after = fields.skip(1);
    let terminal: i32 = after.next()?.parse().ok()?;
    let foreground: i32 = after.next()?.parse().ok()?;
    Some(terminal != 0 && foreground == group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foregrounds_are_told() {
        for (stat, expected) in [
            // state, parent, group, session, terminal, its foreground
            ("77 (pillion-proxy) S 1 77 70 34816 77 4194304 0", Some(true)),
            ("77 (a ) b) S 1 77 70 34816 70 4194304 0", Some(false)),
            ("77 (pillion-proxy) S 1 77 77 0 -1 4194304 0", Some(false)),
            ("77 (pillion-proxy) S 1", None),
        ] {
            assert_eq!(is_foreground(stat), expected, "{stat}");
        }
        assert!(!has_heard(Signal::HUP));
    }
}
