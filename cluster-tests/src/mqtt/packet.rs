//! The packets a broker sends.

use super::Props;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    /// 0 at QoS 0.
    pub id: u16,
    pub props: Props,
}

impl Publish {
    /// The payload as text, for messages that tests made from text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckKind {
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    pub kind: AckKind,
    pub id: u16,
    /// Reason code; 0 in 3.x.
    pub code: u8,
    pub props: Props,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    ConnAck { session_present: bool, code: u8, props: Props },
    Publish(Publish),
    Ack(Ack),
    SubAck { id: u16, codes: Vec<u8>, props: Props },
    UnsubAck { id: u16, codes: Vec<u8>, props: Props },
    PingResp,
    Disconnect { code: u8, props: Props },
    Auth { code: u8, props: Props },
}
