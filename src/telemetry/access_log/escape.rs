//! Keeps what a caller sent from looking like what we wrote.

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends a value of a text line: quotes and backslashes behind a backslash, anything that is not printable ASCII
/// as `\x0a`. A bare word, not between quotes in Istio's format, has its spaces replaced by `_` as in Envoy.
pub(super) fn text(bytes: &[u8], bare_word: bool, out: &mut Vec<u8>) {
    if bytes.is_empty() {
        out.push(b'-');
        return;
    }
    if is_harmless(bytes, bare_word) {
        out.extend_from_slice(bytes);
        return;
    }
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| !is_plain(*byte) || (bare_word && *byte == b' ')) {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, tail)) = tail.split_first() else { break };
        match byte {
            b' ' => out.push(b'_'),
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            byte => {
                out.extend_from_slice(b"\\x");
                push_hex(*byte, out);
            }
        }
        rest = tail;
    }
    out.extend_from_slice(rest);
}

/// Appends the inside of a JSON string. Bytes that are not UTF-8 become U+FFFD.
pub(in crate::telemetry) fn json(bytes: &[u8], out: &mut Vec<u8>) {
    if is_harmless(bytes, false) {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some((at, special)) = rest.char_indices().find(|(_, one)| is_special(*one)) {
            let (plain, tail) = rest.split_at(at);
            out.extend_from_slice(plain.as_bytes());
            match special {
                '"' | '\\' => out.extend_from_slice(&[b'\\', special as u8]),
                special => {
                    out.extend_from_slice(b"\\u");
                    // None of them is beyond four digits.
                    let [.., high, low] = u32::from(special).to_be_bytes();
                    push_hex(high, out);
                    push_hex(low, out);
                }
            }
            rest = tail.get(special.len_utf8()..).unwrap_or_default();
        }
        out.extend_from_slice(rest.as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// What JSON has to escape, and beside it what ends a line or moves the cursor of whoever reads the log: DEL, C1 controls, U+2028, U+2029.
fn is_special(one: char) -> bool {
    one.is_control() || matches!(one, '"' | '\\' | '\u{2028}' | '\u{2029}')
}

/// Whether nothing needs escaping, in a bare word not even a space. Looks at eight bytes at once: nearly all values are short and harmless.
fn is_harmless(bytes: &[u8], bare_word: bool) -> bool {
    let floor = if bare_word { 0x21 } else { 0x20 };
    let (words, rest) = bytes.as_chunks::<8>();
    let found = words.iter().fold(0, |found, word| found | suspects(u64::from_le_bytes(*word), floor));
    let last = match bytes.last_chunk::<8>() {
        Some(last) => u64::from_le_bytes(*last),
        None => rest.iter().fold(EACH * u64::from(b'a'), |word, byte| word << 8 | u64::from(*byte)),
    };
    (found | suspects(last, floor)) & HIGH == 0
}

const EACH: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = EACH << 7;

/// Sets the high bit of some byte when a byte of `word` is below `floor`, above 0x7e, a quote or a backslash.
const fn suspects(word: u64, floor: u64) -> u64 {
    const fn equal(word: u64, byte: u8) -> u64 {
        let zero = word ^ (EACH * byte as u64);
        zero.wrapping_sub(EACH) & !zero
    }
    let below = word.wrapping_sub(EACH * floor) & !word;
    word | below | equal(word, b'"') | equal(word, b'\\') | equal(word, 0x7f)
}

/// Printable ASCII but the quote and the backslash.
const fn is_plain(byte: u8) -> bool {
    (byte >= 0x20) & (byte < 0x7f) & (byte != b'"') & (byte != b'\\')
}

fn push_hex(byte: u8, out: &mut Vec<u8>) {
    let digits = [byte >> 4, byte & 15].map(|digit| HEX.get(usize::from(digit)).copied().unwrap_or(b'?'));
    out.extend_from_slice(&digits);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_byte_is_found_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for length in 1..=17 {
                for at in 0..length {
                    let mut bytes = vec![b'a'; length];
                    bytes[at] = byte;
                    assert_eq!(is_harmless(&bytes, false), is_plain(byte), "{byte:#x} at {at} of {length}");
                    assert_eq!(is_harmless(&bytes, true), is_plain(byte) && byte != b' ');
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_text_value_never_ends_its_line_or_quotes(bytes: Vec<u8>, bare: bool) {
            let mut out = Vec::new();
            text(&bytes, bare, &mut out);
            prop_assert!(out.iter().all(|byte| (0x20..0x7f).contains(byte)));
            prop_assert!(!bare || !out.contains(&b' '));
            let mut escaped = false;
            for byte in &out {
                prop_assert!(escaped || *byte != b'"');
                escaped = *byte == b'\\' && !escaped;
            }
            prop_assert!(!escaped, "an escape runs into what follows");
        }

        #[test]
        fn a_json_value_is_read_back(value: String) {
            let mut out = vec![b'"'];
            json(value.as_bytes(), &mut out);
            out.push(b'"');
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), value);
        }

        #[test]
        fn a_json_value_moves_no_cursor(value in "[\\x00-\\x1f\\x7f-\\u{9f}\\u{2028}\\u{2029}a\u{e9}\u{4e16}]{0,20}") {
            let mut out = Vec::new();
            json(value.as_bytes(), &mut out);
            let text = String::from_utf8(out).unwrap();
            prop_assert!(!text.contains(|one: char| one.is_control() || ('\u{2028}'..='\u{2029}').contains(&one)), "{text:?}");
            prop_assert_eq!(serde_json::from_str::<String>(&format!("\"{text}\"")).unwrap(), value);
        }

        #[test]
        fn any_bytes_make_valid_json(bytes: Vec<u8>) {
            let mut out = vec![b'"'];
            json(&bytes, &mut out);
            out.push(b'"');
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), String::from_utf8_lossy(&bytes));
        }
    }
}
