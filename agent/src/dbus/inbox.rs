//! What was received and not read yet, cut into messages. Pure.

use super::{Malformed, Message};

/// Memory that is kept for the next message, bytes; a large answer is rare.
const KEPT_BYTES: usize = 4_096;

/// Bytes as they come in.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// How much of a message that is too long is still to come, bytes.
    skip: usize,
}

impl Inbox {
    /// Where received bytes are appended.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Takes the next complete message. One that is too long comes without its body, which is
    /// skipped as it arrives: it is no reason to end the connection.
    pub(super) fn take(&mut self) -> Result<Option<Message>, Malformed> {
        let skipped = self.skip.min(self.bytes.len());
        self.bytes.drain(..skipped);
        self.skip -= skipped;
        let Some((message, size)) = Message::read(&self.bytes)? else {
            return Ok(None);
        };
        let here = size.min(self.bytes.len());
        self.skip = size - here;
        self.bytes.drain(..here);
        if self.bytes.is_empty() {
            self.bytes.shrink_to(KEPT_BYTES);
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::message::MAX_MESSAGE_BYTES, *};
    use crate::dbus::{BusError, Call};

    #[test]
    fn a_message_that_is_too_long_is_an_error_of_its_own_and_the_next_is_read() {
        let long = "x".repeat(MAX_MESSAGE_BYTES);
        let mut bytes = Vec::new();
        Call::method("a.b", "/c", "d.e", "Long")
            .with_text(&long)
            .write(1, &mut bytes);
        Call::method("a.b", "/c", "d.e", "Next")
            .with_text("short")
            .write(2, &mut bytes);
        let mut inbox = Inbox::default();
        let mut messages = Vec::new();
        for some in bytes.chunks(100_000) {
            inbox.bytes().extend_from_slice(some);
            while let Some(message) = inbox.take().unwrap() {
                messages.push(message);
            }
            assert!(inbox.bytes().len() <= 200_000, "it is not kept");
        }
        let members: Vec<&str> = messages.iter().map(|one| one.member.as_str()).collect();
        assert_eq!(members, ["Long", "Next"]);
        let mut results = messages.into_iter().map(Message::into_result);
        assert!(matches!(results.next(), Some(Err(BusError::TooLong))));
        assert!(matches!(results.next(), Some(Ok(_))));
    }
}
