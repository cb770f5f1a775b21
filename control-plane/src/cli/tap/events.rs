//! Server-sent events as they come. Pure.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) data: String,
}

/// A stream that was read so far.
#[derive(Debug, Default)]
pub(super) struct Reader {
    unread: Vec<u8>,
    name: String,
    data: Vec<String>,
}

impl Reader {
    /// Takes in more of it; gives the events that are whole now.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.unread.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            events.extend(self.line(line.trim_end_matches(['\r', '\n'])));
        }
        events
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            return (!data.is_empty()).then(|| Event { name, data: data.join("\n") });
        }
        // What begins with a colon is a comment.
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => self.data.push(value.to_owned()),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text = ": keep\n\nevent: request\ndata: {\"path\":\"/ä\"}\n\nid: 7\ndata: one\r\ndata: two\r\n\r\nevent: cut";
        let event = |name: &str, data: &str| Event { name: name.to_owned(), data: data.to_owned() };
        let expected = [event("request", "{\"path\":\"/ä\"}"), event("", "one\ntwo")];
        for size in 1..text.len() {
            let mut reader = Reader::default();
            let read: Vec<Event> =
                text.as_bytes().chunks(size).flat_map(|chunk| reader.take(chunk)).collect();
            assert_eq!(read, expected, "in chunks of {size}");
        }
    }
}
