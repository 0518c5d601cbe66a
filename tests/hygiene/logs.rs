//! What a client writes stays within its field of the log.

use super::sidecar_with;
use crate::support::Raw;
use crate::support::raw::lossy;

#[tokio::test]
async fn row_22_nothing_a_client_writes_starts_a_line_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    for (encoding, name) in [("TEXT", "text.log"), ("JSON", "json.log")] {
        let path = folder.path().join(name);
        let spec =
            format!("meshConfig: {{accessLogFile: \"{}\", accessLogEncoding: {encoding}}}", path.display());
        let (proxy, _up) = sidecar_with(&spec).await;
        let (mut logged, mut refused) = (0, 0);
        for line in [
            "User-Agent: a\x1b[31mred\x07",
            "User-Agent: \"quoted\" \\n [forged] line",
            "X-Forwarded-For: 1.2.3.4\" 200 - forged",
            "User-Agent: \u{85}\u{2028}next\u{9b}31m\u{2029}",
            "X-Request-Id: a\tb",
        ] {
            let mut raw = Raw::connect(proxy.outbound()).await;
            raw.send(format!("GET /log?a=%0a%0d\\n HTTP/1.1\r\nHost: up.shop\r\n{line}\r\n\r\n")).await;
            let status = raw.reply().await.status;
            assert!(matches!(status, 200 | 400), "{line:?}: {status}");
            logged += 1;
            refused += usize::from(status == 400);
        }
        assert!(logged - refused >= 3, "{refused} of {logged}");
        proxy.stop().await;
        let log = std::fs::read(&path).unwrap();
        assert_eq!(log.iter().filter(|byte| **byte == b'\n').count(), logged, "{}", lossy(&log));
        // In JSON, letters of other scripts stay as they are; what ends a line or moves a cursor does not.
        let plain =
            |byte: u8| byte == b'\n' || (b' '..0x7f).contains(&byte) || encoding == "JSON" && byte > 0x7f;
        assert!(log.iter().all(|byte| plain(*byte)), "{}", lossy(&log));
        let text = lossy(&log);
        assert!(!text.contains(['\u{85}', '\u{9b}', '\u{2028}', '\u{2029}']), "{text}");
        // Of what the codec refuses, the log knows neither method nor target.
        let refusals = text.lines().filter(|line| line.contains("http1.codec_error")).count();
        assert_eq!(refusals, refused, "{text}");
        for line in text.lines().filter(|line| !line.contains("http1.codec_error")) {
            if encoding == "JSON" {
                let parsed: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(parsed["method"], "GET", "{line}");
            } else {
                assert!(line.starts_with("[20") && line.contains("\"GET /log?a=%0a%0d"), "{line}");
            }
        }
    }
}
