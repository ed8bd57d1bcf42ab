use std::error::Error;
use std::mem::ManuallyDrop;
use std::time::SystemTime;

use spanwire_model::{
    SpanContext, SpanId, SpanKind, Status, Text, TraceFlags, TraceId, TraceState, Value, exception,
};

use crate::clock;
use crate::context::{self, Context, ContextGuard, Ids};
use crate::random;
use crate::record::Time;
use crate::sampler::{SamplingParameters, SituationBit};
use crate::sink::{self, Open};
use crate::tracer::Tracer;

/// A span about to be started; made by [`Tracer::span`](crate::Tracer::span).
#[must_use = "a span builder does nothing until `start`"]
#[derive(Clone, Copy, Debug)]
pub struct SpanBuilder<'a> {
    tracer: &'a Tracer,
    name: &'a str,
    kind: SpanKind,
    parent: Parent<'a>,
    start: Option<SystemTime>,
}

#[derive(Clone, Copy, Debug)]
enum Parent<'a> {
    Current,
    Root,
    Given(&'a SpanContext),
}

impl<'a> SpanBuilder<'a> {
    #[inline]
    pub(crate) fn new(tracer: &'a Tracer, name: &'a str) -> Self {
        Self { tracer, name, kind: SpanKind::Internal, parent: Parent::Current, start: None }
    }

    /// Its part in a call; [`SpanKind::Internal`] by default.
    #[inline]
    pub fn kind(self, kind: SpanKind) -> Self {
        Self { kind, ..self }
    }

    /// Makes it a child of this span instead of the current one.
    ///
    /// ```
    /// # use spanwire_tracer::{Loss, Provider};
    /// # let tracer = Provider::builder().build(|_| Err(Loss::QueueFull)).tracer("shop");
    /// let order = tracer.start("order");
    /// let parent = order.context().clone(); // may be sent to another thread
    /// let shipping = tracer.span("ship").parent(&parent).start();
    /// assert_eq!(shipping.context().trace_id, order.context().trace_id);
    /// ```
    #[inline]
    pub fn parent(self, parent: &'a SpanContext) -> Self {
        Self { parent: Parent::Given(parent), ..self }
    }

    /// Makes it the root of a new trace.
    ///
    /// ```
    /// # use spanwire_tracer::{Loss, Provider};
    /// # let tracer = Provider::builder().build(|_| Err(Loss::QueueFull)).tracer("shop");
    /// let request = tracer.start("request");
    /// let _current = request.enter();
    /// let report = tracer.span("nightly report").root().start();
    /// assert_ne!(report.context().trace_id, request.context().trace_id);
    /// ```
    #[inline]
    pub fn root(self) -> Self {
        Self { parent: Parent::Root, ..self }
    }

    /// When it started, where that is not now.
    ///
    /// ```
    /// # use spanwire_tracer::{Loss, Provider};
    /// # let tracer = Provider::builder().build(|_| Err(Loss::QueueFull)).tracer("shop");
    /// let accepted = std::time::SystemTime::now(); // before there was anything to name
    /// let request = tracer.span("GET /users/{id}").start_time(accepted).start();
    /// ```
    #[inline]
    pub fn start_time(self, start: SystemTime) -> Self {
        Self { start: Some(start), ..self }
    }

    /// Starts it.
    ///
    /// Cost: a sampled span takes a clock reading and the copy of its name; one that is not sampled
    /// takes only its ids.
    ///
    /// Inlined always, as far as a span that is not sampled goes: so either kind is put together once,
    /// where the caller wants it.
    #[inline(always)]
    pub fn start(self) -> Span {
        let situation = match self.parent {
            Parent::Current => context::current_situation(),
            Parent::Root => SituationBit::ROOT,
            Parent::Given(parent) => SituationBit::under(parent),
        };
        let verdict = self.tracer.settled.verdict(situation);
        if verdict == Some(false) {
            let parent = match situation {
                SituationBit::ROOT => None,
                _ => self.parent_ids(),
            };
            let (trace_id, span_id) = drawn(parent);
            let flags = parent.map_or(TraceFlags::RANDOM, |parent| parent.flags);
            let flags = flags.without(TraceFlags::SAMPLED);
            let context = SpanContext::new(trace_id, span_id, flags);
            return Span { context, open: ManuallyDrop::new(None) };
        }
        self.start_sampled(verdict)
    }

    #[inline(always)]
    fn parent_ids(&self) -> Option<Ids> {
        match self.parent {
            Parent::Current => context::current_ids(),
            Parent::Root => None,
            Parent::Given(parent) => Some(Ids::from(parent)),
        }
    }

    /// Starts a span that is sampled, or may be.
    #[inline(never)]
    fn start_sampled(&self, verdict: Option<bool>) -> Span {
        let parent = self.parent_ids();
        let (trace_id, span_id) = drawn(parent);
        let inherited = parent.map_or(TraceFlags::RANDOM, |parent| parent.flags);
        let (sampled, trace_state) = match verdict {
            Some(sampled) => (sampled, TraceState::EMPTY),
            None => self.ask_sampler(trace_id),
        };
        let flags = inherited.with(TraceFlags::SAMPLED);
        let opened = if sampled { sink::start(&self.tracer.shared) } else { None };
        let Some(mut open) = opened else {
            let (span_id, flags) = match parent {
                // Nobody will ever get this span, so whatever is called from it belongs to the
                // parent; a trace that would start here has nothing in it.
                Some(parent) if sampled => (parent.span_id, parent.flags),
                _ => (span_id, inherited.without(TraceFlags::SAMPLED)),
            };
            let context = SpanContext { trace_id, span_id, flags, is_remote: false, trace_state };
            return Span { context, open: ManuallyDrop::new(None) };
        };
        let record = &mut *open.record;
        record.writer.begin(
            trace_id,
            span_id,
            trace_state.as_str(),
            parent.map(|parent| parent.span_id),
            self.name,
            self.kind,
        );
        let remote = parent.is_some_and(|parent| parent.is_remote);
        record.flags = spanwire_model::Span::flags_of(flags, remote);
        // The clock last: what came before is not the span's own time.
        record.started = self.start.map_or_else(|| Time::Ticks(clock::ticks()), Time::from);
        let context = SpanContext { trace_id, span_id, flags, is_remote: false, trace_state };
        Span { context, open: ManuallyDrop::new(Some(open)) }
    }

    #[inline(never)]
    fn ask_sampler(&self, trace_id: TraceId) -> (bool, TraceState) {
        let parent = self.parent_context();
        let parameters = SamplingParameters {
            parent: parent.as_ref(),
            trace_id,
            name: self.name,
            kind: self.kind,
        };
        let sampled = self.tracer.shared.sampler().sample(&parameters);
        (sampled, parent.map(|parent| parent.trace_state).unwrap_or_default())
    }

    fn parent_context(&self) -> Option<SpanContext> {
        match self.parent {
            Parent::Current => Context::current().span().cloned(),
            Parent::Root => None,
            Parent::Given(parent) => Some(parent.clone()),
        }
    }
}

/// The ids of a new span.
#[inline(always)]
fn drawn(parent: Option<Ids>) -> (TraceId, SpanId) {
    match parent {
        None => random::ids(),
        Some(parent) => (parent.trace_id, random::span_id()),
    }
}

/// An open span. It ends when dropped, or by [`end`](Self::end).
///
/// Belongs to one owner at a time and can be sent to other threads. What is set on a span that is
/// not sampled costs one branch.
///
/// ```
/// use spanwire_tracer::{Loss, Provider, SpanKind};
///
/// # let provider = Provider::builder().build(|_| Err(Loss::QueueFull));
/// # let user = String::from("7");
/// let tracer = provider.tracer("shop");
/// let mut request = tracer.span("GET /users/{id}").kind(SpanKind::Server).start();
/// request.set_attribute("http.route", "/users/{id}");
/// request.set_attribute("user.id", &user); // borrowed, not copied first
/// {
///     let _entered = request.enter();
///     let query = tracer.start("SELECT users"); // a child
///     assert_eq!(query.context().trace_id, request.context().trace_id);
/// }
/// if let Err(error) = "x".parse::<u32>() {
///     request.record_error(&error);
/// }
/// ```
#[must_use = "a span ends as soon as it is dropped"]
#[derive(Debug)]
pub struct Span {
    context: SpanContext,
    /// Taken out by `drop`, and by nobody else; so there is nothing left to drop in it, and the
    /// compiler, told so, drops a span that is not sampled without looking.
    open: ManuallyDrop<Option<Open>>,
}

impl Span {
    /// Its ids, flags and trace state, for children elsewhere.
    #[must_use]
    pub fn context(&self) -> &SpanContext {
        &self.context
    }

    /// Whether what is set on it is kept: whether it is sampled.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.open.is_some()
    }

    /// Sets an attribute; an earlier one with this key is replaced.
    ///
    /// Cost: compares the key with those present and copies both to where they are sent from.
    #[inline]
    pub fn set_attribute<'a>(&mut self, key: &str, value: impl Into<Value<'a>>) {
        if let Some(open) = &mut *self.open {
            open.record.set_attribute(key, value.into());
        }
    }

    /// Replaces the name.
    pub fn set_name(&mut self, name: &str) {
        if let Some(open) = &mut *self.open {
            open.record.writer.set_name(name);
        }
    }

    /// Says how it went. `Ok` is final; `Unset` changes nothing.
    ///
    /// ```
    /// # use spanwire_tracer::{Loss, Provider};
    /// use spanwire_tracer::Status;
    ///
    /// # let mut span = Provider::builder().build(|_| Err(Loss::QueueFull)).tracer("shop").start("s");
    /// span.set_status(Status::Error { message: "card declined".into() });
    /// ```
    ///
    /// Source: "Set Status" in `trace/api.md`, opentelemetry-specification v1.60.
    pub fn set_status(&mut self, status: Status) {
        if let Some(open) = &mut *self.open {
            open.record.set_status(status);
        }
    }

    /// Adds an event that happens now, with attributes.
    ///
    /// ```
    /// # use spanwire_tracer::{Loss, Provider};
    /// # let provider = Provider::builder().build(|_| Err(Loss::QueueFull));
    /// # let mut span = provider.tracer("shop").start("checkout");
    /// span.add_event("cache.miss", [("cache.key", "user:7".into()), ("cache.size", 12.into())]);
    /// ```
    pub fn add_event<'a>(
        &mut self,
        name: &str,
        attributes: impl IntoIterator<Item = (&'a str, Value<'a>)>,
    ) {
        if let Some(open) = &mut *self.open {
            open.record.add_event(clock::unix_nano(), name, attributes);
        }
    }

    /// Adds an event that happened at another time.
    pub fn add_event_at<'a>(
        &mut self,
        time: SystemTime,
        name: &str,
        attributes: impl IntoIterator<Item = (&'a str, Value<'a>)>,
    ) {
        if let Some(open) = &mut *self.open {
            open.record.add_event(clock::unix_nano_of(time), name, attributes);
        }
    }

    /// Adds a link to another span, with attributes.
    ///
    /// ```
    /// # use spanwire_tracer::{Loss, Provider};
    /// # let tracer = Provider::builder().build(|_| Err(Loss::QueueFull)).tracer("shop");
    /// let message = tracer.start("send order");
    /// let mut batch = tracer.span("process orders").root().start();
    /// batch.add_link(message.context(), [("messaging.message.id", "m-7".into())]);
    /// ```
    pub fn add_link<'a>(
        &mut self,
        context: &SpanContext,
        attributes: impl IntoIterator<Item = (&'a str, Value<'a>)>,
    ) {
        if let Some(open) = &mut *self.open {
            open.record.add_link(context, attributes);
        }
    }

    /// Adds an `exception` event for an error and marks the span as failed.
    ///
    /// Source: "Recording exceptions" in semantic conventions v1.44 (`exceptions-spans.md`).
    pub fn record_error<E: Error + ?Sized>(&mut self, error: &E) {
        if !self.is_recording() {
            return;
        }
        let message = error.to_string();
        let causes = exception::causes(error);
        let attributes = [
            Some((exception::TYPE, std::any::type_name::<E>().into())),
            Some((exception::MESSAGE, message.as_str().into())),
            causes.as_deref().map(|causes| (exception::STACKTRACE, causes.into())),
        ];
        self.add_event(exception::EVENT, attributes.into_iter().flatten());
        self.set_status(Status::Error { message: Text::from(message) });
    }

    /// Makes it the current span of this thread until the guard is dropped; new spans are its
    /// children. For futures there is [`InContext::in_span`](crate::InContext::in_span).
    pub fn enter(&self) -> ContextGuard {
        self.as_current().attach()
    }

    /// The current context with this span as its own.
    #[must_use]
    pub fn as_current(&self) -> Context {
        Context::current().with_span(self.context.clone())
    }

    /// Ends it now.
    // Not `#[inline]`: the compiler would first move the span to where the inlined body looks for its
    // argument, and loads of the copy would wait for the stores of its parts. 8 instead of 4 ns for a
    // span that is not sampled.
    pub fn end(self) {}

    /// Ends it at another time.
    ///
    /// ```
    /// # use spanwire_tracer::{Loss, Provider};
    /// # let tracer = Provider::builder().build(|_| Err(Loss::QueueFull)).tracer("shop");
    /// let query = tracer.start("SELECT users");
    /// let answered = std::time::SystemTime::now();
    /// // ... rows are read, which is not the database's time
    /// query.end_at(answered);
    /// ```
    pub fn end_at(mut self, end: SystemTime) {
        if let Some(open) = &mut *self.open {
            open.record.ended = end.into();
        }
    }
}

impl Drop for Span {
    // Always inlined, and no more than this: all that a span that is not sampled takes.
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            sink::end(open);
        }
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        Self::UnixNano(clock::unix_nano_of(time))
    }
}
