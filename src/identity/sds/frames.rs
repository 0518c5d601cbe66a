//! Messages of gRPC out of the bytes of a stream.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use zeroize::Zeroizing;

/// Compressed or not, and the length: what stands before a message (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;
/// The most bytes of one message, as gRPC's own default has it.
const MAX_MESSAGE: usize = 4 << 20;

/// Cuts what arrives into messages. They hold keys, so their bytes are overwritten when they are dropped.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// What has arrived and was not looked at.
    chunk: Bytes,
    prefix: [u8; PREFIX],
    /// How much of the prefix is there.
    begun: usize,
    /// The message that has begun, with room for all of it.
    message: Option<(usize, Zeroizing<Vec<u8>>)>,
}

impl Frames {
    /// Takes the next bytes; only once [`next`](Self::next) has none left.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "what came before is taken first");
        self.chunk = chunk;
    }

    /// The next whole message.
    ///
    /// # Errors
    /// It is compressed, which nobody asked for, or longer than [`MAX_MESSAGE`].
    pub(crate) fn next(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        loop {
            if let Some((length, message)) = &mut self.message {
                let part = (*length - message.len()).min(self.chunk.len());
                message.extend_from_slice(&self.chunk[..part]);
                self.chunk.advance(part);
                if message.len() < *length {
                    return Ok(None);
                }
                self.begun = 0;
                return Ok(self.message.take().map(|(_, message)| message));
            }
            while self.begun < PREFIX {
                let Some(byte) = self.chunk.first() else { return Ok(None) };
                self.prefix[self.begun] = *byte;
                self.chunk.advance(1);
                self.begun += 1;
            }
            let [compressed, length @ ..] = self.prefix;
            if compressed != 0 {
                return Err("it sent a compressed message, which was not asked for".to_owned());
            }
            let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            if length > MAX_MESSAGE {
                return Err(format!("it sent a message of {length} bytes; at most {MAX_MESSAGE} are taken"));
            }
            self.message = Some((length, Zeroizing::new(Vec::with_capacity(length))));
        }
    }

    /// Whether no message has begun.
    pub(crate) fn is_between(&self) -> bool {
        self.begun == 0 && self.chunk.is_empty()
    }
}

/// A message with what stands before it.
pub(super) fn framed(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // The buffer grows, so there is always room.
    let _ = message.encode(&mut bytes);
    bytes.freeze()
}
