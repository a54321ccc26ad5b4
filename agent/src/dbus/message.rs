//! One message: header and body (D-Bus Specification, "Message Protocol").

use std::io;

use super::{BusError, Malformed, Reader, Value, Writer};

/// Longest message that is taken, bytes; the specification allows 128 MiB.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Bytes of a header before its list of fields.
const FIXED_BYTES: usize = 16;
const LITTLE_ENDIAN: u8 = b'l';
const VERSION: u8 = 1;
const NO_REPLY: u8 = 1;
const NO_AUTO_START: u8 = 2;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks for something.
    Call,
    /// The answer.
    Return,
    /// The answer, if it failed.
    Error,
    /// Tells something.
    Signal,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Call => 1,
            Self::Return => 2,
            Self::Error => 3,
            Self::Signal => 4,
        }
    }

    const fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Call),
            2 => Some(Self::Return),
            3 => Some(Self::Error),
            4 => Some(Self::Signal),
            _ => None,
        }
    }
}

/// A message that was received. Texts are empty where the header does not have them.
#[derive(Clone, Debug)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Its number, which an answer names.
    pub serial: u32,
    /// For answers: the number of the call.
    pub reply_to: Option<u32>,
    /// The object.
    pub path: String,
    /// The interface.
    pub interface: String,
    /// The method or the signal.
    pub member: String,
    /// For errors: which.
    pub error: String,
    /// The unique name of who sent it.
    pub sender: String,
    signature: String,
    body: Vec<u8>,
    big_endian: bool,
}

impl Message {
    /// Reads one message from the start of `bytes`; `None` while it is not complete. With it goes its
    /// length.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        if bytes.len() < FIXED_BYTES {
            return Ok(None);
        }
        let big_endian = bytes[0] != LITTLE_ENDIAN;
        let fixed = Reader::new(&bytes[..FIXED_BYTES], big_endian).values("yyyyuuu")?;
        let number = |at: usize| fixed.get(at).and_then(Value::number).unwrap_or(0) as usize;
        let (body_bytes, fields_bytes) = (number(4), number(6));
        let body_at = (FIXED_BYTES + fields_bytes).next_multiple_of(8);
        let size = body_at + body_bytes;
        if number(3) != usize::from(VERSION) || size > MAX_MESSAGE_BYTES {
            return Err(Malformed);
        }
        if bytes.len() < size {
            return Ok(None);
        }
        let mut message = Self {
            kind: Kind::from_code(number(1) as u64).ok_or(Malformed)?,
            serial: number(5) as u32,
            reply_to: None,
            path: String::new(),
            interface: String::new(),
            member: String::new(),
            error: String::new(),
            sender: String::new(),
            signature: String::new(),
            body: bytes[body_at..size].to_vec(),
            big_endian,
        };
        let header = Reader::new(&bytes[..body_at], big_endian).values("yyyyuua(yv)")?;
        for field in header.last().map_or(&[][..], Value::list) {
            if let [code, value] = field.list() {
                message.field(code.number().unwrap_or(0), value);
            }
        }
        Ok(Some((message, size)))
    }

    fn field(&mut self, code: i64, value: &Value) {
        let text = || value.text().unwrap_or_default().to_owned();
        match code {
            1 => self.path = text(),
            2 => self.interface = text(),
            3 => self.member = text(),
            4 => self.error = text(),
            5 => self.reply_to = value.number().and_then(|n| u32::try_from(n).ok()),
            7 => self.sender = text(),
            8 => self.signature = text(),
            _ => {}
        }
    }

    /// What it says.
    pub fn values(&self) -> Result<Vec<Value>, Malformed> {
        Reader::new(&self.body, self.big_endian).values(&self.signature)
    }

    /// What it says, or the error that it is.
    pub fn into_result(self) -> Result<Vec<Value>, BusError> {
        let values = self.values()?;
        if self.kind == Kind::Error {
            let text = values.first().and_then(Value::text).unwrap_or_default();
            let text = format!("{}: {text}", self.error);
            return Err(BusError::Io(io::Error::other(text)));
        }
        Ok(values)
    }
}

/// A message to send.
#[derive(Clone, Debug)]
pub struct Call {
    kind: Kind,
    destination: String,
    path: String,
    interface: String,
    member: String,
    reply_to: Option<u32>,
    signature: String,
    body: Writer,
    flags: u8,
}

impl Call {
    /// A call of a method.
    pub fn method(destination: &str, path: &str, interface: &str, member: &str) -> Self {
        Self {
            kind: Kind::Call,
            destination: destination.to_owned(),
            path: path.to_owned(),
            interface: interface.to_owned(),
            member: member.to_owned(),
            reply_to: None,
            signature: String::new(),
            body: Writer::default(),
            flags: 0,
        }
    }

    /// The bus must not start the service that is called; without it the call fails.
    #[must_use]
    pub fn starting_nothing(mut self) -> Self {
        self.flags |= NO_AUTO_START;
        self
    }

    /// A signal to all who listen.
    pub fn signal(path: &str, interface: &str, member: &str) -> Self {
        Self {
            kind: Kind::Signal,
            flags: NO_REPLY,
            ..Self::method("", path, interface, member)
        }
    }

    /// The answer to a call.
    pub fn answer(to: &Message) -> Self {
        Self {
            kind: Kind::Return,
            reply_to: Some(to.serial),
            flags: NO_REPLY,
            ..Self::method(&to.sender, "", "", "")
        }
    }

    /// The answer to a call that failed.
    pub fn error(to: &Message, name: &str) -> Self {
        Self {
            kind: Kind::Error,
            member: name.to_owned(),
            ..Self::answer(to)
        }
    }

    /// Appends a text to what it says.
    #[must_use]
    pub fn with_text(self, text: &str) -> Self {
        self.with("s", |body| body.text(text))
    }

    /// Appends a value that `write` writes as `signature` says.
    #[must_use]
    pub fn with(mut self, signature: &str, write: impl FnOnce(&mut Writer)) -> Self {
        self.signature.push_str(signature);
        write(&mut self.body);
        self
    }

    pub(super) fn write(&self, serial: u32, to: &mut Vec<u8>) {
        let mut header = Writer::default();
        header.byte(LITTLE_ENDIAN);
        header.byte(self.kind.code());
        header.byte(self.flags);
        header.byte(VERSION);
        header.number(self.body.bytes.len() as u32);
        header.number(serial);
        let (member, error) = match self.kind {
            Kind::Error => ("", self.member.as_str()),
            _ => (self.member.as_str(), ""),
        };
        header.array(8, |fields| {
            let texts = [
                (1, "o", self.path.as_str()),
                (2, "s", &self.interface),
                (3, "s", member),
                (4, "s", error),
                (6, "s", &self.destination),
            ];
            for (code, signature, text) in texts.into_iter().filter(|(.., t)| !t.is_empty()) {
                fields.align(8);
                fields.byte(code);
                fields.signature(signature);
                fields.text(text);
            }
            if let Some(reply_to) = self.reply_to {
                fields.align(8);
                fields.byte(5);
                fields.signature("u");
                fields.number(reply_to);
            }
            if !self.signature.is_empty() {
                fields.align(8);
                fields.byte(8);
                fields.signature("g");
                fields.signature(&self.signature);
            }
        });
        header.align(8);
        to.extend_from_slice(&header.bytes);
        to.extend_from_slice(&self.body.bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_read_once_it_is_complete() {
        let call = Call::method("a.b", "/c", "d.e", "F").with_text("nginx.service");
        let mut bytes = Vec::new();
        call.write(9, &mut bytes);
        let size = bytes.len();
        bytes.extend_from_slice(b"next");
        for cut in 0..size {
            assert!(Message::read(&bytes[..cut]).unwrap().is_none(), "{cut}");
        }
        let (message, read) = Message::read(&bytes).unwrap().unwrap();
        assert_eq!((read, message.serial, message.kind), (size, 9, Kind::Call));
        assert_eq!(
            (&*message.path, &*message.interface, &*message.member),
            ("/c", "d.e", "F")
        );
        let said = message.into_result().unwrap();
        assert_eq!(said, [Value::Text("nginx.service".to_owned())]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fall(mut bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..150, byte: u8) {
            let _ = Message::read(&bytes);
            let call = Call::method("a.b", "/c", "d.e", "F").with_text("nginx.service");
            bytes.clear();
            call.write(9, &mut bytes);
            if let Some(one) = bytes.get_mut(at) {
                *one = byte;
            }
            if let Ok(Some((message, _))) = Message::read(&bytes) {
                let _ = message.values();
            }
        }
    }
}
