//! Asks the agent of this pod where its NPUs stand. Nothing of the kernel's is read here: a readiness probe that did would not
//! return while an unbind hangs, and could not be killed either.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// What is read of the agent's report.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct AgentStatus {
    /// Whether every NPU that is wanted is verified, and the agent is the one that keeps it so.
    pub ready: bool,
    /// In one word.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Longer than any report.
const BYTES: u64 = 1 << 20;

/// Asks the agent that listens at `address` and returns its report, as text and in short. Takes no longer than `patience`.
pub fn ask(mut address: SocketAddr, timeout: Duration) -> Result<(String, AgentStatus), String> {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let answer = exchange(address, Instant::now() + timeout)
        .map_err(|error| format!("the agent does not answer at {address}: {error}"))?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let told = serde_json::from_str(body).map_err(|_| format!("the agent at {address} answers something else"))?;
    Ok((body.to_owned(), told))
}

fn exchange(address: SocketAddr, until: Instant) -> std::io::Result<String> {
    let left = || match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(std::io::Error::from(ErrorKind::TimedOut)),
        left => Ok(left),
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    write!(stream, "GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = vec![];
    let mut part = [0; 4096];
    while u64::try_from(answer.len()).unwrap_or(u64::MAX) < BYTES {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut part)? {
            0 => break,
            bytes => answer.extend_from_slice(&part[..bytes]),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const TIMEOUT: Duration = Duration::from_millis(300);

    /// Something that answers once, a part every 100 ms, and then keeps the connection open if it is to.
    fn agent(parts: Vec<&'static str>, hangs: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let _ = stream.read(&mut [0; 1024]);
            for part in parts {
                let _ = stream.write_all(part.as_bytes());
                std::thread::sleep(Duration::from_millis(100));
            }
            if hangs {
                std::thread::sleep(Duration::from_secs(20));
            }
        });
        address
    }

    #[test]
    fn the_agents_words_are_passed_on() {
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
        let body = r#"{"ready": false, "reason": "NoDevices", "message": "this node has no NPU", "devices": []}"#;
        let (text, told) = ask(agent(vec![head, body], false), Duration::from_secs(5)).expect("an answer");
        assert_eq!(text, body);
        let expected = AgentStatus { ready: false, reason: "NoDevices".into(), message: "this node has no NPU".into() };
        assert_eq!(told, expected);
    }

    #[test]
    fn an_agent_that_does_not_answer_takes_no_longer_than_is_allowed() {
        let dripping = vec!["H"; 100];
        for address in [agent(vec![], true), agent(dripping, true)] {
            let begun = Instant::now();
            let why = ask(address, TIMEOUT).expect_err("no answer");
            assert!(begun.elapsed() < TIMEOUT * 3, "{:?}", begun.elapsed());
            assert!(why.starts_with("the agent does not answer at 127.0.0.1:"), "{why}");
        }
        let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        assert!(ask(closed, TIMEOUT).expect_err("nobody").contains("refused"));
    }
}
