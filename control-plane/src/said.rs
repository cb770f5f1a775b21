//! What a sidecar says, as people may be shown it: a terminal obeys control characters, and a line feed ends a row of a table.

/// Its words, cut to `most` characters and free of control characters.
pub fn words(text: &str, most: usize) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).take(most).collect()
}

/// Whether it may be a name of at most `most` bytes.
pub fn is_name(text: &str, most: usize) -> bool {
    text.len() <= most && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_left_out() {
        for (text, expected) in [
            ("refused", "refused"),
            ("no\r\nsuch\ttenant", "no  such tenant"),
            ("\u{1b}[2Jgone", " [2Jgone"),
            ("\u{9b}2Jgone", " 2Jgone"),
            ("größer", "größer"),
            ("cut after fifteen", "cut after fifte"),
        ] {
            assert_eq!(words(text, 15), expected);
        }
        assert_eq!(words(&"ä".repeat(9), 4), "ä".repeat(4));
        for (text, expected) in
            [("pay.demo", true), ("pay\n.demo", false), ("pay\u{1b}", false), ("payments.demo", false)]
        {
            assert_eq!(is_name(text, 8), expected, "{text:?}");
        }
    }
}
