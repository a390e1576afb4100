//! Bytes of ZMTP 1.0, as libzmq 2.x of 2012 sent them: no greeting but a frame with the client's
//! name, which is empty, then messages. A frame is its length plus one, a byte that says whether
//! more follow, and the content.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::adapter_of_2012;

const PATIENCE: Duration = Duration::from_secs(60);

fn frame(content: &[u8], more: bool) -> Vec<u8> {
    let length = content.len() + 1;
    // A length beyond 254 is 255 and eight bytes more.
    let mut bytes = match u8::try_from(length) {
        Ok(short) if short < 255 => vec![short],
        _ => [&[255][..], &(length as u64).to_be_bytes()].concat(),
    };
    bytes.push(u8::from(more));
    bytes.extend_from_slice(content);
    bytes
}

fn read_frame(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut byte = [0; 1];
    stream.read_exact(&mut byte).unwrap();
    let length = match byte[0] {
        255 => {
            let mut long = [0; 8];
            stream.read_exact(&mut long).unwrap();
            usize::try_from(u64::from_be_bytes(long)).unwrap()
        }
        short => usize::from(short),
    };
    assert!((1..1 << 20).contains(&length), "{length}");
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).unwrap();
    (rest[1..].to_vec(), rest[0] & 1 == 1)
}

fn exchange(stream: &mut TcpStream, frames: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut bytes = frame(b"", true);
    let last = frames.len() - 1;
    for (number, content) in frames.iter().enumerate() {
        bytes.extend(frame(content, number < last));
    }
    stream.write_all(&bytes).unwrap();
    let mut answer = Vec::new();
    loop {
        let (content, more) = read_frame(stream);
        answer.push(content);
        if !more {
            return answer;
        }
    }
}

#[test]
fn a_client_of_2012_by_its_bytes() {
    let adapter = adapter_of_2012();
    let mut stream = TcpStream::connect(adapter.api_address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&frame(b"", false)).unwrap();
    // The server has no name either. Its other bits tell newer peers what it is; to an old one they
    // mean nothing, as nothing follows a name.
    let (name, _) = read_frame(&mut stream);
    assert!(name.is_empty(), "{name:?}");
    let long = format!(
        r#"{{"method": "query_usage_report", "args": {{"id": "u1", "metric": "vmnetwork",
            "metric_param": "total", "statistic": "sum", "period": 60,
            "timestamp_from": "2012-04-09T12:00:00", "timestamp_to": "2012-04-09T13:00:00"}}}}{}"#,
        " ".repeat(300)
    );
    for body in [long.as_bytes(), br#"{"method": "x", "args": {}}"#] {
        let answer = exchange(&mut stream, &[b"kanyun", b"u1", body]);
        assert_eq!(answer.len(), 4, "{answer:?}");
        assert_eq!(answer[..3], [&b""[..], b"kanyun", b"u1"]);
        let body: serde_json::Value = serde_json::from_slice(&answer[3]).unwrap();
        assert_eq!(body["code"], 200, "{body}");
    }
    let (sum, key) = (143, "1333973160.0");
    let answer = exchange(&mut stream, &[b"kanyun", b"u1", long.as_bytes()]);
    let body: serde_json::Value = serde_json::from_slice(&answer[3]).unwrap();
    assert_eq!(body["data"], serde_json::json!({key: sum}));
    adapter.stop();
}
