//! Blocks of properties: validated once, then read again lazily from the borrowed bytes.

use std::borrow::Cow;

use super::property::{self, Ids, Property, id};
use super::reader::Reader;
use super::{DecodeError, ReasonCode};

/// Iterates over the properties of a block (wire form without its length prefix), in their
/// order. Ends early at anything malformed, which blocks from a decoded packet never hold.
#[derive(Clone, Copy, Debug)]
pub struct Properties<'a> {
    rest: Reader<'a>,
}

impl<'a> Properties<'a> {
    #[inline]
    pub fn new(block: &'a [u8]) -> Self {
        Properties { rest: Reader::new(block) }
    }
}

impl<'a> Iterator for Properties<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Property<'a>> {
        let id = self.rest.u8().ok()?;
        Property::read(id, &mut self.rest).ok()
    }
}

/// The user properties of a packet, in their order.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserProperties<'a> {
    block: &'a [u8],
}

impl<'a> UserProperties<'a> {
    pub const NONE: UserProperties<'static> = UserProperties { block: &[] };
    /// Bytes of one whose name and value are empty: its identifier and two lengths.
    pub const MIN_BYTES: usize = 5;

    /// User properties in wire form without a length prefix, as
    /// [`super::encode::user_property`] writes them.
    ///
    /// # Errors
    /// Anything else is in it.
    pub fn from_wire(block: &'a [u8]) -> Result<Self, DecodeError> {
        check(block, Ids::of(&[id::USER_PROPERTY]))?;
        Ok(UserProperties { block })
    }

    /// Of a block that has been checked, whatever else it holds.
    pub(super) fn of(block: &'a [u8]) -> Self {
        UserProperties { block }
    }

    /// Bytes of the block that they are in, other properties included.
    pub fn block_len(&self) -> usize {
        self.block.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        Properties::new(self.block).filter_map(|p| match p {
            Property::UserProperty(name, value) => Some((name, value)),
            _ => None,
        })
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

/// The properties that a message keeps on its way through the broker, inside the property block
/// they came in.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForwardProperties<'a> {
    block: &'a [u8],
    /// Span of the block from the first forwardable property to the end of the last.
    start: usize,
    end: usize,
    /// Something not forwardable is inside the span.
    mixed: bool,
}

impl<'a> ForwardProperties<'a> {
    /// Forwardable properties in wire form without a length prefix.
    ///
    /// # Errors
    /// A property that is malformed, repeated or not forwardable.
    pub fn from_wire(block: &'a [u8]) -> Result<Self, DecodeError> {
        check(block, property::FORWARDABLE)?;
        Ok(ForwardProperties { block, start: 0, end: block.len(), mixed: false })
    }

    /// In wire form without a length prefix. Borrowed unless something that is not forwardable
    /// stands in between, which no common client does.
    #[inline]
    pub fn to_wire(&self) -> Cow<'a, [u8]> {
        let span = &self.block[self.start..self.end];
        if self.mixed { Cow::Owned(filtered(span)) } else { Cow::Borrowed(span) }
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn iter(&self) -> impl Iterator<Item = Property<'a>> + use<'a> {
        Properties::new(&self.block[self.start..self.end]).filter(is_forwardable)
    }

    /// The payload is said to be UTF-8 text.
    pub fn payload_is_text(&self) -> bool {
        self.iter().any(|p| p == Property::PayloadFormatIndicator(true))
    }

    pub fn content_type(&self) -> Option<&'a str> {
        self.iter().find_map(|p| match p {
            Property::ContentType(v) => Some(v),
            _ => None,
        })
    }

    pub fn response_topic(&self) -> Option<&'a str> {
        self.iter().find_map(|p| match p {
            Property::ResponseTopic(v) => Some(v),
            _ => None,
        })
    }

    pub fn correlation_data(&self) -> Option<&'a [u8]> {
        self.iter().find_map(|p| match p {
            Property::CorrelationData(v) => Some(v),
            _ => None,
        })
    }

    pub fn user_properties(&self) -> UserProperties<'a> {
        UserProperties::of(&self.block[self.start..self.end])
    }
}

impl PartialEq for ForwardProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.to_wire() == other.to_wire()
    }
}

impl Eq for ForwardProperties<'_> {}

fn is_forwardable(property: &Property<'_>) -> bool {
    matches!(
        property,
        Property::PayloadFormatIndicator(_)
            | Property::ContentType(_)
            | Property::ResponseTopic(_)
            | Property::CorrelationData(_)
            | Property::UserProperty(..)
    )
}

#[cold]
fn filtered(span: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(span.len());
    let mut rest = Reader::new(span);
    loop {
        let start = span.len() - rest.len();
        let Some(property) = rest.u8().ok().and_then(|id| Property::read(id, &mut rest).ok()) else {
            return kept;
        };
        if is_forwardable(&property) {
            kept.extend_from_slice(&span[start..span.len() - rest.len()]);
        }
    }
}

fn check(block: &[u8], allowed: Ids) -> Result<(), DecodeError> {
    let mut rest = Reader::new(block);
    visit(&mut rest, allowed, |_| Ok(()))
}

/// Reads a whole block without its length prefix, checking that each property is `allowed` in
/// its packet and comes only once, user properties excepted.
#[inline]
fn visit<'a>(
    block: &mut Reader<'a>,
    allowed: Ids,
    mut see: impl FnMut(Property<'a>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut seen = Ids::NONE;
    while !block.is_empty() {
        see(next(block, allowed, &mut seen, Ids::of(&[id::USER_PROPERTY]))?)?;
    }
    Ok(())
}

#[inline]
fn next<'a>(
    block: &mut Reader<'a>,
    allowed: Ids,
    seen: &mut Ids,
    repeatable: Ids,
) -> Result<Property<'a>, DecodeError> {
    let id = block.u8()?;
    if !allowed.has(id) {
        return Err(DecodeError::malformed("a property that is unknown or not allowed in this packet"));
    }
    if seen.has(id) && !repeatable.has(id) {
        return Err(DecodeError::protocol("a property that may come only once is repeated"));
    }
    seen.insert(id);
    Property::read(id, block)
}

/// Reads a length-prefixed block of a packet and hands each property to `see`. The user
/// properties are returned as a view.
pub(super) fn read<'a>(
    packet: &mut Reader<'a>,
    allowed: Ids,
    see: impl FnMut(Property<'a>) -> Result<(), DecodeError>,
) -> Result<UserProperties<'a>, DecodeError> {
    let len = packet.varint()?;
    let block = packet.take(len as usize)?;
    visit(&mut Reader::new(block), allowed, see)?;
    Ok(UserProperties::of(block))
}

/// What the property block of a PUBLISH or of a will says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MessageProperties<'a> {
    pub forward: ForwardProperties<'a>,
    pub expiry_s: Option<u32>,
    pub delay_s: u32,
    pub topic_alias: u16,
    /// The whole block, for its subscription identifiers.
    pub block: &'a [u8],
}

/// Reads the length-prefixed property block of a PUBLISH or of a will.
#[inline]
pub(super) fn read_message<'a>(
    packet: &mut Reader<'a>,
    allowed: Ids,
    from_server: bool,
) -> Result<MessageProperties<'a>, DecodeError> {
    let len = packet.varint()?;
    if len == 0 {
        return Ok(MessageProperties::default());
    }
    let block = packet.take(len as usize)?;
    read_message_block(block, allowed, from_server)
}

fn read_message_block(
    block: &[u8],
    allowed: Ids,
    from_server: bool,
) -> Result<MessageProperties<'_>, DecodeError> {
    const REPEATABLE: Ids = Ids::of(&[id::USER_PROPERTY, id::SUBSCRIPTION_IDENTIFIER]);
    let mut found = MessageProperties { block, ..MessageProperties::default() };
    let forward = &mut found.forward;
    forward.block = block;
    let mut rest = Reader::new(block);
    let mut seen = Ids::NONE;
    let mut before = 0;
    while !rest.is_empty() {
        let property = next(&mut rest, allowed, &mut seen, REPEATABLE)?;
        let after = block.len() - rest.len();
        match property {
            Property::MessageExpiryInterval(s) => found.expiry_s = Some(s),
            Property::WillDelayInterval(s) => found.delay_s = s,
            Property::TopicAlias(alias) => found.topic_alias = alias,
            Property::SubscriptionIdentifier(_) => {
                if !from_server {
                    // [MQTT-3.3.4-6]
                    return Err(DecodeError::new(
                        ReasonCode::ProtocolError,
                        "a subscription identifier in a client's PUBLISH",
                    ));
                }
            }
            _ => {
                if forward.end == 0 {
                    forward.start = before;
                } else if forward.end != before {
                    forward.mixed = true;
                }
                forward.end = after;
            }
        }
        before = after;
    }
    Ok(found)
}
