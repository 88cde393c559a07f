//! As little of an HTTP client as a load generator needs: one kept-alive connection, whole answers.

use std::time::Duration;

use foundation::kernel::Clock;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Measured;

/// A connection.
pub(crate) struct Client {
    socket: TcpStream,
    buffer: Vec<u8>,
}

/// What a server answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Seconds, from a 503.
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The text at a place in the JSON body.
    pub(crate) fn text(&self, pointer: &str) -> Measured<String> {
        let json: Value = serde_json::from_slice(&self.body).map_err(|e| e.to_string())?;
        let found = json.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        found.ok_or_else(|| {
            format!("{} without {pointer}: {}", self.status, String::from_utf8_lossy(&self.body))
        })
    }
}

/// The bytes of a request.
pub(crate) fn request(method: &str, path: &str, bearer: &str, body: &str) -> Vec<u8> {
    let authorization =
        if bearer.is_empty() { String::new() } else { format!("authorization: Bearer {bearer}\r\n") };
    let kind = if body.is_empty() {
        String::new()
    } else {
        format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len())
    };
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{authorization}{kind}\r\n{body}").into_bytes()
}

impl Client {
    pub(crate) async fn connect(port: u16) -> Measured<Self> {
        let socket = TcpStream::connect(("127.0.0.1", port)).await.map_err(|e| e.to_string())?;
        socket.set_nodelay(true).map_err(|e| e.to_string())?;
        Ok(Self { socket, buffer: Vec::with_capacity(8_192) })
    }

    pub(crate) async fn send(&mut self, request: &[u8]) -> Measured<Answer> {
        self.socket.write_all(request).await.map_err(|e| e.to_string())?;
        loop {
            if let Some((status, head, length)) = head(&self.buffer)
                && self.buffer.len() >= head + length
            {
                let retry_after = if status == 503 { retry_after(&self.buffer, head) } else { None };
                let body = self.buffer.get(head..head + length).unwrap_or_default().to_vec();
                self.buffer.drain(..head + length);
                return Ok(Answer { status, retry_after, body });
            }
            if self.socket.read_buf(&mut self.buffer).await.map_err(|e| e.to_string())? == 0 {
                return Err("the server closed the connection".into());
            }
        }
    }
}

/// Status, length of the head, length of the body, once the head is whole.
fn head(bytes: &[u8]) -> Option<(u16, usize, usize)> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let status = text.get(9..12)?.parse().ok()?;
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(Some(0), |n| n.parse().ok())?;
    Some((status, end, length))
}

fn retry_after(bytes: &[u8], head: usize) -> Option<u64> {
    let text = std::str::from_utf8(bytes.get(..head)?).ok()?;
    text.lines().find_map(|line| line.strip_prefix("retry-after: "))?.trim().parse().ok()
}

/// What a load gave: answers per second, and each answer's time in seconds.
pub(crate) struct Load {
    pub(crate) per_second: f64,
    pub(crate) times: Vec<f64>,
    pub(crate) failed: usize,
}

/// `clients` connections, each with its own requests one after the other, for a while.
pub(crate) async fn load<F>(port: u16, clients: usize, time: Duration, next: F) -> Measured<Load>
where
    F: Fn(usize, Option<&Answer>) -> Vec<u8> + Clone + Send + 'static,
{
    let started = Clock::stopwatch();
    let tasks: Vec<_> = (0..clients)
        .map(|n| {
            let next = next.clone();
            tokio::spawn(async move {
                let mut client = Client::connect(port).await?;
                let (mut times, mut failed, mut last) = (Vec::new(), 0, None);
                while started.elapsed() < time {
                    let began = Clock::stopwatch();
                    let answer = client.send(&next(n, last.as_ref())).await?;
                    times.push(began.elapsed().as_secs_f64());
                    failed += usize::from(answer.status >= 300);
                    last = Some(answer);
                }
                Ok::<_, String>((times, failed))
            })
        })
        .collect();
    let (mut times, mut failed) = (Vec::new(), 0);
    for task in tasks {
        let (some, wrong) = task.await.map_err(|e| e.to_string())??;
        times.extend(some);
        failed += wrong;
    }
    Ok(Load { per_second: times.len() as f64 / started.elapsed().as_secs_f64(), times, failed })
}
