//! Against a scripted broker.

use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::args::{Cli, Command};
use super::*;
use crate::mqtt::{self, ConnAck, Packet, Publication, ReasonCode, Version, decode, encode};

struct Broker {
    stream: TcpStream,
    received: Vec<u8>,
    version: Option<Version>,
}

impl Broker {
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().await.expect("a client");
        Self { stream, received: Vec::new(), version: None }
    }

    /// The next packet, passed to `check`; what it appends is sent back.
    async fn answer(&mut self, check: impl FnOnce(&Packet<'_>, &mut Vec<u8>)) {
        loop {
            if let Some(length) = mqtt::frame_len(&self.received, u32::MAX).expect("a header")
                && length <= self.received.len()
            {
                let packet: Vec<u8> = self.received.drain(..length).collect();
                let packet = decode(&packet, self.version).expect("a packet");
                if let Packet::Connect(connect) = &packet {
                    self.version = Some(connect.version);
                }
                let mut out = Vec::new();
                check(&packet, &mut out);
                self.stream.write_all(&out).await.expect("sent");
                return;
            }
            let read = self.stream.read_buf(&mut self.received).await.expect("read");
            assert_ne!(read, 0, "the client closed too early");
        }
    }

    async fn connect(&mut self, version: Version, reason: ReasonCode) {
        self.answer(|packet, out| {
            assert!(matches!(packet, Packet::Connect(c) if c.version == version), "{packet:?}");
            assert!(encode::connack(out, version, &ConnAck::new(reason), u32::MAX));
        })
        .await;
    }
}

async fn client(listener: &TcpListener, line: &str) -> tokio::task::JoinHandle<Result<(), Failure>> {
    let url = format!("mqtt://{}", listener.local_addr().expect("bound"));
    let words: Vec<String> =
        format!("rookery mqtt {line} --url {url}").split(' ').map(str::to_owned).collect();
    match Cli::try_parse_from(words).expect("parses").command {
        Command::Mqtt(command) => tokio::spawn(run(command, Format::Json)),
        other => panic!("{other:?}"),
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

#[tokio::test]
async fn a_publish_of_each_qos_waits_for_what_the_standard_owes_it() {
    for version in [Version::V311, Version::V5] {
        let protocol = if version == Version::V5 { "5.0" } else { "3.1.1" };
        for qos in 0..=2_u8 {
            let listener = listener().await;
            let client = client(&listener, &format!("pub --protocol {protocol} -q {qos} -r a/b hi")).await;
            let mut broker = Broker::accept(&listener).await;
            broker.connect(version, ReasonCode::Success).await;
            broker
                .answer(|packet, out| {
                    let Packet::Publish(p) = packet else { panic!("{packet:?}") };
                    assert_eq!((p.topic, p.payload, p.qos as u8, p.retain), ("a/b", &b"hi"[..], qos, true));
                    match qos {
                        1 => encode::puback(out, version, p.packet_id, ReasonCode::Success),
                        2 => encode::pubrec(out, version, p.packet_id, ReasonCode::Success),
                        _ => {}
                    }
                })
                .await;
            if qos == 2 {
                broker
                    .answer(|packet, out| {
                        let Packet::PubRel(ack) = packet else { panic!("{packet:?}") };
                        encode::pubcomp(out, version, ack.packet_id, ReasonCode::Success);
                    })
                    .await;
            }
            broker.answer(|packet, _| assert!(matches!(packet, Packet::Disconnect(_)), "{packet:?}")).await;
            drop(broker);
            client.await.expect("no panic").expect("published");
        }
    }
}

#[tokio::test]
async fn refusals_have_their_exit_codes() {
    for (reason, exit) in [
        (ReasonCode::NotAuthorized, Exit::Unauthorized),
        (ReasonCode::ServerUnavailable, Exit::Unhealthy),
        (ReasonCode::ClientIdentifierNotValid, Exit::Error),
    ] {
        let listener = listener().await;
        let client = client(&listener, "pub a b").await;
        Broker::accept(&listener).await.connect(Version::V5, reason).await;
        assert_eq!(client.await.expect("no panic").expect_err("refused").exit, exit);
    }
}

#[tokio::test]
async fn a_silent_broker_is_given_up() {
    let listener = listener().await;
    let client = client(&listener, "pub a b --timeout 50ms").await;
    let _broker = Broker::accept(&listener).await;
    assert_eq!(client.await.expect("no panic").expect_err("refused").exit, Exit::Timeout);
}

#[tokio::test]
async fn a_subscriber_acknowledges_and_ends_after_its_count() {
    let listener = listener().await;
    let client = client(&listener, "sub -q 2 -n 2 a/# b").await;
    let mut broker = Broker::accept(&listener).await;
    broker.connect(Version::V5, ReasonCode::Success).await;
    let message = Publication {
        topic: "a/b",
        payload: &[0xFF],
        properties: &[],
        qos: QoS::ExactlyOnce,
        retain: false,
        expires_at_ms: 0,
        publisher: "",
    };
    let send = |out: &mut Vec<u8>, packet_id, dup| {
        let publish = mqtt::PublishOut { packet_id, dup, ..mqtt::PublishOut::new(Version::V5, &message) };
        encode::publish(out, &publish).expect("fits");
    };
    broker
        .answer(|packet, out| {
            let Packet::Subscribe(s) = packet else { panic!("{packet:?}") };
            assert_eq!(s.filters.len(), 2);
            encode::suback(out, Version::V5, s.packet_id, &[ReasonCode::GrantedQoS2; 2]);
            // The second is the first again and does not count.
            send(out, 7, false);
            send(out, 7, true);
        })
        .await;
    for _ in 0..2 {
        broker.answer(|packet, _| assert!(matches!(packet, Packet::PubRec(a) if a.packet_id == 7))).await;
    }
    let mut release = Vec::new();
    encode::pubrel(&mut release, Version::V5, 7, ReasonCode::Success);
    send(&mut release, 8, false);
    broker.stream.write_all(&release).await.expect("sent");
    broker.answer(|packet, _| assert!(matches!(packet, Packet::PubComp(a) if a.packet_id == 7))).await;
    broker.answer(|packet, _| assert!(matches!(packet, Packet::PubRec(a) if a.packet_id == 8))).await;
    broker.answer(|packet, _| assert!(matches!(packet, Packet::Disconnect(_)))).await;
    drop(broker);
    client.await.expect("no panic").expect("both came");
}

#[tokio::test]
async fn a_subscriber_says_when_nothing_came_or_was_granted() {
    let listener = listener().await;
    let waiting = client(&listener, "sub --within 50ms a").await;
    let mut broker = Broker::accept(&listener).await;
    broker.connect(Version::V5, ReasonCode::Success).await;
    broker
        .answer(|packet, out| {
            let Packet::Subscribe(s) = packet else { panic!("{packet:?}") };
            encode::suback(out, Version::V5, s.packet_id, &[ReasonCode::Success]);
        })
        .await;
    broker.answer(|packet, _| assert!(matches!(packet, Packet::Disconnect(_)))).await;
    drop(broker);
    assert_eq!(waiting.await.expect("no panic").expect_err("nothing came").exit, Exit::Timeout);

    let refused = client(&listener, "sub --protocol 3.1.1 a").await;
    let mut broker = Broker::accept(&listener).await;
    broker.connect(Version::V311, ReasonCode::Success).await;
    broker
        .answer(|packet, out| {
            let Packet::Subscribe(s) = packet else { panic!("{packet:?}") };
            encode::suback(out, Version::V311, s.packet_id, &[ReasonCode::NotAuthorized]);
        })
        .await;
    refused.await.expect("no panic").expect_err("refused");
}

#[tokio::test]
async fn wrong_topics_are_refused_before_connecting() {
    let listener = listener().await;
    for line in ["pub a/# b", "sub a/#/b", "sub $share/g"] {
        let client = client(&listener, line).await;
        assert_eq!(client.await.expect("no panic").expect_err("refused").exit, Exit::Usage, "{line}");
    }
}

#[tokio::test]
async fn packets_travel_in_binary_websocket_frames_of_the_mqtt_subprotocol() {
    use futures::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message as Frame;
    use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

    let listener = listener().await;
    let url = format!("ws://{}/mqtt", listener.local_addr().expect("bound"));
    let words = ["rookery", "mqtt", "pub", "--url", &url, "a/b", "hi"];
    let Command::Mqtt(command) = Cli::try_parse_from(words).expect("parses").command else {
        panic!("not an mqtt command")
    };
    let client = tokio::spawn(run(command, Format::Json));
    let (stream, _) = listener.accept().await.expect("a client");
    #[expect(clippy::result_large_err, reason = "the type is the library's")]
    let upgrade = |request: &Request, mut response: Response| {
        assert_eq!(request.uri().path(), "/mqtt");
        let offered = request.headers().get("sec-websocket-protocol").expect("a subprotocol").clone();
        assert_eq!(offered, "mqtt");
        response.headers_mut().insert("sec-websocket-protocol", offered);
        Ok(response)
    };
    let mut stream = tokio_tungstenite::accept_hdr_async(stream, upgrade).await.expect("an upgrade");
    let connect = stream.next().await.expect("a frame").expect("a good one").into_data();
    assert!(matches!(decode(&connect, None).expect("a packet"), Packet::Connect(_)));
    let mut out = Vec::new();
    assert!(encode::connack(&mut out, Version::V5, &ConnAck::new(ReasonCode::Success), u32::MAX));
    // Frames are not packets: one may end in the middle of the other.
    for half in out.chunks(2) {
        stream.send(Frame::binary(half.to_vec())).await.expect("sent");
    }
    let publish = stream.next().await.expect("a frame").expect("a good one").into_data();
    let Packet::Publish(publish) = decode(&publish, Some(Version::V5)).expect("a packet") else {
        panic!("not a PUBLISH")
    };
    assert_eq!((publish.topic, publish.payload), ("a/b", &b"hi"[..]));
    let goodbye = stream.next().await.expect("a frame").expect("a good one").into_data();
    assert!(matches!(decode(&goodbye, Some(Version::V5)).expect("a packet"), Packet::Disconnect(_)));
    drop(stream);
    client.await.expect("no panic").expect("published");
}
