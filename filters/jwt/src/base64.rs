//! Base64url without padding (RFC 4648 section 5), one text for each sequence of bytes.
//!
//! Lenient decoders read several texts as the same bytes: a signature could be changed in its last letter and still hold. This one refuses
//! padding, white space and stray bits.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

const INVALID: u8 = 0xff;

const VALUES: [u8; 256] = {
    let mut values = [INVALID; 256];
    let mut at = 0;
    while at < 64 {
        values[ALPHABET[at] as usize] = at as u8;
        at += 1;
    }
    values
};

/// The bytes of a text; `None` when it is not the one text that [`encode`] would write for them.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.chunks(4) {
        let mut bits = 0_u32;
        for &letter in chunk {
            let value = VALUES[usize::from(letter)];
            if value == INVALID {
                return None;
            }
            bits = bits << 6 | u32::from(value);
        }
        // Left-aligned in 24 bits; what is left over has to be zero.
        let missing = 4 - chunk.len();
        bits <<= 6 * missing;
        let [_, first, second, third] = bits.to_be_bytes();
        match missing {
            0 => bytes.extend([first, second, third]),
            1 if third == 0 => bytes.extend([first, second]),
            2 if second == 0 && third == 0 => bytes.push(first),
            _ => return None,
        }
    }
    Some(bytes)
}

/// The one text of these bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    write(bytes, ALPHABET)
}

/// Base64 with padding, as Envoy writes claims that are no plain values into headers.
pub(crate) fn encode_standard(bytes: &[u8]) -> String {
    let mut text = write(bytes, STANDARD);
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

fn write(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut bits = 0_u32;
        for at in 0..3 {
            bits = bits << 8 | u32::from(chunk.get(at).copied().unwrap_or(0));
        }
        for letter in 0..=chunk.len() {
            let value = bits >> (18 - 6 * letter) & 63;
            text.push(char::from(alphabet[value as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn padding_white_space_and_stray_bits_are_refused() {
        assert_eq!(decode(b"").as_deref(), Some(&b""[..]));
        assert_eq!(decode(b"Zm9vYg").as_deref(), Some(&b"foob"[..]));
        for wrong in ["Zg==", "Zh", "Zm9", "Z", "Zm9v\n", "Zm 9v", "Zm+v", "Zm/v", "Zm9vé"] {
            assert_eq!(decode(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(encode_standard(b"foob"), "Zm9vYg==");
        assert_eq!(encode_standard(&[0xfb, 0xff]), "+/8=");
    }

    proptest! {
        #[test]
        fn what_is_decoded_is_encoded_the_same(text in "[A-Za-z0-9_-]{0,40}") {
            if let Some(bytes) = decode(text.as_bytes()) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }

        #[test]
        fn what_is_encoded_is_decoded(bytes: Vec<u8>) {
            prop_assert_eq!(decode(encode(&bytes).as_bytes()), Some(bytes));
        }
    }
}
