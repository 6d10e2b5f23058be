use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::env;
use crate::mqtt::{Connect, QoS, Version, encode};
use crate::net::serve;
use crate::session::testing::{FakeService, encoded, packets, publish_bytes};
use crate::session::{Context, Limits, Metric};

struct Client {
    stream: DuplexStream,
    service: Arc<FakeService>,
    context: Arc<Context>,
    task: JoinHandle<()>,
}

fn client(limits: Limits, pipe_bytes: usize) -> Client {
    let service = Arc::new(FakeService::default());
    let context = Context::new(limits, service.clone());
    let (stream, theirs) = tokio::io::duplex(pipe_bytes);
    let task = env::spawn(serve(theirs, "pipe".into(), context.clone()));
    Client { stream, service, context, task }
}

impl Client {
    async fn connect(&mut self, keep_alive_s: u16) {
        let connect = Connect { client_id: "c", keep_alive_s, ..Connect::new(Version::V311) };
        self.send(&encoded(|buf| encode::connect(buf, &connect).expect("fits"))).await;
        assert_eq!(self.read(4).await, ["CONNACK 00"]);
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the broker reads");
    }

    async fn read(&mut self, len: usize) -> Vec<String> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).await.expect("the broker answers");
        packets(&bytes, Version::V311)
    }

    async fn read_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).await.expect("an end");
        bytes
    }
}

#[tokio::test(start_paused = true)]
async fn connect_publish_and_leave() {
    let mut c = client(Limits::default(), 1024);
    c.connect(0).await;
    c.send(&publish_bytes(Version::V311, "t", b"x", QoS::AtLeastOnce, 3)).await;
    assert_eq!(c.read(4).await, ["PUBACK 3 00"]);
    c.send(&[0xE0, 0]).await;
    assert!(c.read_end().await.is_empty());
    c.task.await.expect("ends");
    assert_eq!(
        c.service.take_calls()[1..],
        ["publish t x q1 id 3 expiry None", "ended Disconnect { with_will: false, expiry_s: None }"]
    );
    assert_eq!(c.context.counters.get(Metric::Sockets), 0);
}

#[tokio::test(start_paused = true)]
async fn silence_before_connect() {
    let mut c = client(Limits::default(), 1024);
    let began = Instant::now();
    assert!(c.read_end().await.is_empty());
    assert_eq!(began.elapsed().as_secs(), 10);
    assert!(c.service.take_calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn keep_alive() {
    let mut c = client(Limits::default(), 1024);
    c.connect(10).await;
    tokio::time::advance(Duration::from_secs(14)).await;
    c.send(&[0xC0, 0]).await;
    assert_eq!(c.read(2).await, ["PINGRESP"]);
    let began = Instant::now();
    assert!(c.read_end().await.is_empty());
    let elapsed_ms = began.elapsed().as_millis();
    assert!((15_000..15_010).contains(&elapsed_ms), "{elapsed_ms}");
    c.task.await.expect("ends");
    assert_eq!(c.service.take_calls()[1..], ["ended Lost"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_its_time() {
    let mut c = client(Limits::default(), 1024);
    c.service.hold_connect.store(true, Ordering::Relaxed);
    let connect = Connect { client_id: "c", ..Connect::new(Version::V311) };
    let mut bytes = encoded(|buf| encode::connect(buf, &connect).expect("fits"));
    bytes.extend([0xC0, 0]);
    c.send(&bytes).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    c.service.conn().accept(c.service.grant("c"));
    assert_eq!(c.read(6).await, ["CONNACK 00", "PINGRESP"]);
    drop(c.stream);
    c.task.await.expect("ends");
    assert_eq!(c.service.take_calls()[1..], ["ended Lost"]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_read_to_the_end() {
    let mut c = client(Limits::default(), 1024);
    *c.service.refuse.lock() = Some(crate::mqtt::ReasonCode::Banned);
    let connect = Connect { client_id: "c", ..Connect::new(Version::V311) };
    c.send(&encoded(|buf| encode::connect(buf, &connect).expect("fits"))).await;
    assert_eq!(c.read_end().await, [0x20, 2, 0, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_everything_that_was_sent() {
    let mut c = client(Limits { outbox_max_bytes: 50 << 20, ..Limits::default() }, 999);
    c.connect(0).await;
    let subscriber = c.service.conn();
    c.service.subscribers.lock().push((subscriber, QoS::AtMostOnce));
    let publish = publish_bytes(Version::V311, "t", &[b'x'; 50_000], QoS::AtMostOnce, 0);
    let one = publish.len();
    let (mut reader, mut writer) = tokio::io::split(c.stream);
    let sending = env::spawn(async move {
        for _ in 0..100 {
            writer.write_all(&publish).await.expect("the broker reads");
        }
        writer
    });
    let mut bytes = vec![0; one * 100];
    reader.read_exact(&mut bytes).await.expect("everything comes");
    assert_eq!(packets(&bytes, Version::V311).len(), 100);
    drop(sending.await.expect("sent"));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_task_ends_its_connection() {
    let mut c = client(Limits::default(), 1024);
    c.connect(0).await;
    c.task.abort();
    assert!(c.read_end().await.is_empty());
    assert_eq!(c.service.take_calls()[1..], ["ended Lost"]);
    assert_eq!(c.context.counters.get(Metric::Connections), 0);
}
