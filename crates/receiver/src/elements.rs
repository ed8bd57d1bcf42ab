//! Checks a request, in elements as well as in framing: bytes alone do not tell what it costs whoever
//! decodes it.

use bytes::Bytes;
use spanwire_codec::view::{self, AnyValue, Checked, KeyValue, Malformed, Request, Span};

use crate::budget::Reservation;
use crate::fault::Fault;
use crate::sink::Compressed;
use crate::stats::Reason;

/// Leaves malformed spans out of `request`, and refuses it if it has more than `elements_max`
/// elements: resources, scopes, spans, attributes, events, links, and the values within arrays and
/// maps.
///
/// A request too short to have that many, as an ordinary one is, is not counted. Of a longer one the
/// envelopes and spans are counted before anything else is done with it, and the rest once it is
/// known to be well-formed: two more passes, and a third over what is left of a request that had
/// malformed spans.
///
/// `reservation` is the request's, and grows by the copy that malformed spans are left out of.
/// `compressed` is what the request came as, and goes where it would no longer be the same.
pub(crate) fn check(
    request: Bytes,
    elements_max: usize,
    reservation: &mut Reservation,
    compressed: &mut Option<Compressed>,
) -> Result<Checked, Fault> {
    if request.len() / ELEMENT_BYTES_MIN <= elements_max {
        return well_formed(request, reservation, compressed);
    }
    let bytes = request.clone();
    let sent = Request::parse(&bytes).map_err(malformed)?;
    let left = |request: &Request<'_>| {
        elements_max
            .checked_sub(request.envelopes() + request.spans())
            .ok_or_else(|| too_many(elements_max))
    };
    left(&sent)?;
    let checked = well_formed(request, reservation, compressed)?;
    let kept = match checked.rejected {
        0 => sent,
        _ => Request::parse(&checked.request).map_err(malformed)?,
    };
    Left(left(&kept)?).take(&kept).ok_or_else(|| too_many(elements_max))?;
    Ok(checked)
}

fn well_formed(
    request: Bytes,
    reservation: &mut Reservation,
    compressed: &mut Option<Compressed>,
) -> Result<Checked, Fault> {
    let inspected = view::inspect(request).map_err(malformed)?;
    let copy_bytes_max = inspected.copy_bytes_max();
    if copy_bytes_max > 0 {
        // Gone before the copy is made, the largest request has room for one.
        *compressed = None;
        if !reservation.grow(copy_bytes_max) {
            return Err(Fault::budget());
        }
    }
    inspected.reject().map_err(malformed)
}

fn malformed(malformed: Malformed) -> Fault {
    Fault::new(Reason::Malformed, malformed.to_string())
}

fn too_many(elements_max: usize) -> Fault {
    let message = format!("the request is over the limit of {elements_max} elements");
    Fault::new(Reason::TooLarge, message)
}

/// The least an element takes on the wire: a tag, and a length of zero.
const ELEMENT_BYTES_MIN: usize = 2;

/// Elements that may still come. Counting ends with `None` where they do not suffice.
struct Left(usize);

impl Left {
    fn take(&mut self, request: &Request<'_>) -> Option<()> {
        for resource_spans in request.resource_spans() {
            if let Some(resource) = resource_spans.resource() {
                self.attributes(resource.attributes())?;
                for entity in resource.entity_refs() {
                    self.one()?;
                    let mut keys = entity.id_keys().chain(entity.description_keys());
                    keys.try_for_each(|_key| self.one())?;
                }
            }
            for scope_spans in resource_spans.scope_spans() {
                if let Some(scope) = scope_spans.scope() {
                    self.attributes(scope.attributes())?;
                }
                scope_spans.spans().try_for_each(|span| self.span(&span))?;
            }
        }
        Some(())
    }

    fn span(&mut self, span: &Span<'_>) -> Option<()> {
        self.attributes(span.attributes())?;
        for event in span.events() {
            self.one()?;
            self.attributes(event.attributes())?;
        }
        for link in span.links() {
            self.one()?;
            self.attributes(link.attributes())?;
        }
        Some(())
    }

    fn attributes<'a>(&mut self, attributes: impl Iterator<Item = KeyValue<'a>>) -> Option<()> {
        for attribute in attributes {
            self.one()?;
            self.within(attribute.value())?;
        }
        Some(())
    }

    /// What lies within a value. The recursion ends at the nesting that the view has checked.
    fn within(&mut self, value: AnyValue<'_>) -> Option<()> {
        match value {
            AnyValue::Array(values) => {
                for value in values {
                    self.one()?;
                    self.within(value)?;
                }
                Some(())
            }
            AnyValue::Map(entries) => self.attributes(entries.into_iter()),
            _ => Some(()),
        }
    }

    fn one(&mut self) -> Option<()> {
        self.0 = self.0.checked_sub(1)?;
        Some(())
    }
}
