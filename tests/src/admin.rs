//! What a program serves on its admin address.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A plain HTTP GET: status, and head and body; 0 when nobody answers. Of HTTP/1.0, whose answers come in one piece.
pub async fn get(address: &str, path: &str) -> (u16, String) {
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return (0, String::new());
    };
    let request = format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n");
    let mut answer = String::new();
    if stream.write_all(request.as_bytes()).await.is_err() || stream.read_to_string(&mut answer).await.is_err() {
        return (0, answer);
    }
    let status = answer.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, answer)
}

/// The sum of a metric over all label sets that contain this text.
#[must_use]
pub fn sum(metrics: &str, name: &str, label: &str) -> f64 {
    let lines = metrics.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')));
    lines.filter(|line| line.contains(label)).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_metric_is_summed_by_its_whole_name_and_a_label() {
        let text =
            "# TYPE a counter\na_total{verb=\"list\"} 2\na_total{verb=\"watch\"} 3\na_total_more{verb=\"list\"} 5\n";
        assert_eq!((super::sum(text, "a_total", ""), super::sum(text, "a_total", "\"list\"")), (5.0, 2.0));
    }
}
