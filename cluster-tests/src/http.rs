//! The few HTTP requests the tests make.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Status and body of a GET.
pub fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    request("GET", address, path)
}

/// Status and body of a DELETE.
pub fn delete(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    request("DELETE", address, path)
}

/// Status and body of a PUT of JSON.
pub fn put(address: SocketAddr, path: &str, body: &str) -> io::Result<(u16, String)> {
    exchange("PUT", address, path, body)
}

/// Status and body of a POST of JSON.
pub fn post(address: SocketAddr, path: &str, body: &str) -> io::Result<(u16, String)> {
    exchange("POST", address, path, body)
}

fn request(method: &str, address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    exchange(method, address, path, "")
}

fn exchange(method: &str, address: SocketAddr, path: &str, body: &str) -> io::Result<(u16, String)> {
    let mut tcp = TcpStream::connect_timeout(&address, TIMEOUT)?;
    tcp.set_read_timeout(Some(TIMEOUT))?;
    tcp.set_write_timeout(Some(TIMEOUT))?;
    // HTTP/1.0: the body ends with the connection, no chunks.
    let content = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
    };
    tcp.write_all(format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n{content}\r\n{body}").as_bytes())?;
    let mut answer = String::new();
    tcp.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| io::Error::other(format!("not HTTP: {answer:?}")))
}

/// Sum of all samples of a metric in a Prometheus exposition, over all labels; `None`: absent.
pub fn metric(exposition: &str, name: &str) -> Option<f64> {
    let samples = exposition.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let base = series.split('{').next()?;
        (base == name).then(|| value.parse::<f64>().ok())?
    });
    samples.reduce(|sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::metric;

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let text = "# TYPE a counter\na_total{why=\"x y\"} 2\na_total{why=\"z\"} 3\nab_total 9\n";
        assert_eq!(metric(text, "a_total"), Some(5.0));
        assert_eq!(metric(text, "b_total"), None);
    }
}
