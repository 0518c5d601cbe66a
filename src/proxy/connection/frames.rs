//! The frames of an HTTP/2 connection as its socket sees them: what the codec does not tell.
//!
//! The codec waits for the end of a header block for ever, and of the streams that it refuses nobody hears. Both show in the nine bytes that each frame begins with;
//! nothing else is read here, and nothing is kept.

/// What comes from the client.
#[derive(Debug)]
pub(super) struct Incoming {
    walk: Walk,
    /// Of the preface, how much is still to come.
    preface: usize,
    begun: bool,
    /// A header block goes on in the next frame.
    open: bool,
    data: bool,
}

/// What goes to the client.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    walk: Walk,
    /// The last stream that was answered without a body.
    ended: u32,
}

/// A stream that the codec has refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It broke the rules of HTTP/2.
    Malformed,
    /// Its head was too large, and was answered 431.
    TooLarge,
}

/// Finds where frames begin.
#[derive(Debug, Default)]
struct Walk {
    start: [u8; RESET_LENGTH],
    have: usize,
    /// Of the payload, how much is still to come.
    left: usize,
}

/// How a frame begins.
#[derive(Clone, Copy, Debug)]
struct Start {
    kind: u8,
    flags: u8,
    stream: u32,
    /// Of RST_STREAM.
    code: u32,
}

/// RFC 9113 section 3.4.
const PREFACE_LENGTH: usize = 24;

/// RFC 9113 section 4.1.
const START_LENGTH: usize = 9;

/// The same and an error code.
const RESET_LENGTH: usize = START_LENGTH + 4;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const PROTOCOL_ERROR: u32 = 1;

impl Default for Incoming {
    fn default() -> Self {
        Self { walk: Walk::default(), preface: PREFACE_LENGTH, begun: false, open: false, data: false }
    }
}

impl Incoming {
    /// These bytes came.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        let preface = self.preface.min(bytes.len());
        self.preface -= preface;
        let Self { walk, begun, open, data, .. } = self;
        walk.over(bytes.get(preface..).unwrap_or_default(), |frame| {
            *begun = true;
            *data = frame.kind == DATA;
            if matches!(frame.kind, HEADERS | CONTINUATION) {
                *open = frame.flags & END_HEADERS == 0;
            }
        });
    }

    /// Whether the client owes us the rest of something that is worth nothing in part: the preface, its SETTINGS, a header block, any frame but of data.
    pub(super) fn is_within_head(&self) -> bool {
        !self.begun || self.open || self.walk.have > 0 || (self.walk.left > 0 && !self.data)
    }
}

impl Outgoing {
    /// These bytes went. Tells of each stream that the codec has refused.
    pub(super) fn wrote(&mut self, bytes: &[u8], mut refused: impl FnMut(Refused)) {
        let Self { walk, ended } = self;
        walk.over(bytes, |frame| match frame.kind {
            HEADERS if frame.flags & END_STREAM != 0 => *ended = frame.stream,
            RST_STREAM if frame.code == PROTOCOL_ERROR => {
                let too_large = *ended == frame.stream;
                refused(if too_large { Refused::TooLarge } else { Refused::Malformed });
            }
            _ => {}
        });
    }
}

impl Walk {
    fn over(&mut self, mut bytes: &[u8], mut begins: impl FnMut(Start)) {
        while !bytes.is_empty() {
            let payload = self.left.min(bytes.len());
            self.left -= payload;
            bytes = bytes.get(payload..).unwrap_or_default();
            let reset = self.have >= START_LENGTH && self.start[3] == RST_STREAM;
            let wanted = if reset { RESET_LENGTH } else { START_LENGTH };
            let take = (wanted - self.have).min(bytes.len());
            let (more, rest) = bytes.split_at(take);
            if let Some(place) = self.start.get_mut(self.have..self.have + take) {
                place.copy_from_slice(more);
            }
            self.have += take;
            bytes = rest;
            if self.have < wanted || (self.have == START_LENGTH && self.start[3] == RST_STREAM) {
                continue;
            }
            let [a, b, c, kind, flags, d, e, f, g, code @ ..] = self.start;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            self.left = length.saturating_sub(self.have - START_LENGTH);
            self.have = 0;
            let stream = u32::from_be_bytes([d, e, f, g]) & (u32::MAX >> 1);
            begins(Start { kind, flags, stream, code: u32::from_be_bytes(code) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags];
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn after(bytes: &[u8], pieces: usize) -> bool {
        let mut incoming = Incoming::default();
        bytes.chunks(pieces).for_each(|piece| incoming.read(piece));
        incoming.is_within_head()
    }

    #[test]
    fn a_client_is_within_a_head_from_its_first_byte_to_the_end_of_the_block() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let settings = [preface.clone(), frame(4, 0, 0, &[0; 6])].concat();
        let headers = [settings.clone(), frame(HEADERS, 1, 1, b"abc")].concat();
        let rest = [headers.clone(), frame(CONTINUATION, END_HEADERS, 1, b"def")].concat();
        let body = [rest.clone(), frame(DATA, 0, 1, b"half of")].concat();
        for pieces in [1, 2, 7, 1000] {
            assert!(after(&preface, pieces), "no SETTINGS");
            assert!(after(&settings[..settings.len() - 1], pieces));
            assert!(!after(&settings, pieces));
            assert!(after(&headers, pieces), "no CONTINUATION");
            assert!(after(&rest[..rest.len() - 2], pieces));
            assert!(!after(&rest, pieces));
            assert!(!after(&body[..body.len() - 3], pieces), "a body has its own limits");
            assert!(!after(&body, pieces));
        }
    }

    #[test]
    fn refused_streams_show_in_what_goes_out() {
        let code = |code: u32| code.to_be_bytes();
        let bytes = [
            frame(4, 0, 0, &[0; 12]),
            frame(RST_STREAM, 0, 1, &code(8)),
            frame(RST_STREAM, 0, 3, &code(PROTOCOL_ERROR)),
            frame(HEADERS, END_HEADERS, 5, b"head"),
            frame(DATA, END_STREAM, 5, &[3; 100]),
            frame(HEADERS, END_HEADERS | END_STREAM, 7, b"431"),
            frame(RST_STREAM, 0, 7, &code(PROTOCOL_ERROR)),
        ]
        .concat();
        for pieces in [1, 5, 1000] {
            let (mut outgoing, mut seen) = (Outgoing::default(), Vec::new());
            bytes.chunks(pieces).for_each(|piece| outgoing.wrote(piece, |refused| seen.push(refused)));
            assert_eq!(seen, [Refused::Malformed, Refused::TooLarge]);
        }
    }

    proptest! {
        #[test]
        fn how_bytes_are_cut_changes_nothing(bytes: Vec<u8>, pieces in 1..20usize) {
            prop_assert_eq!(after(&bytes, pieces), after(&bytes, bytes.len().max(1)));
        }
    }
}
