use std::cell::{Cell, RefCell};
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{self, Poll};

use pin_project_lite::pin_project;
use spanwire_model::{SpanContext, SpanId, TraceFlags, TraceId};

use crate::baggage::Baggage;
use crate::propagation;
use crate::sampler::SituationBit;
use crate::span::Span;

/// What travels along a request: the current span's ids, and baggage.
///
/// A context is a value. It becomes *current* for a stretch of code by [`attach`](Self::attach), for
/// a future by [`InContext::in_context`]; new spans are children of the current one.
///
/// ```
/// use spanwire_tracer::Context;
///
/// // What a server does with a request's headers:
/// let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let context = Context::extract(|name| (name == "traceparent").then_some(header));
/// let worker = std::thread::spawn(move || {
///     let _attached = context.attach(); // contexts go to other threads as values
///     Context::current().span().map(|span| span.trace_id.to_string())
/// });
/// assert_eq!(worker.join().expect("worker").as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
/// ```
///
/// Source: `context/README.md`, opentelemetry-specification v1.60.
#[derive(Clone, Debug, Default)]
pub struct Context {
    span: Option<SpanContext>,
    baggage: Baggage,
    /// The trace that is to be debugged, by a caller's B3 headers. A trace rather than a flag, so that
    /// it goes along to children and not to a new trace that is started meanwhile.
    debugged: Option<TraceId>,
}

thread_local! {
    static CURRENT: Current = const { Current::none() };

    static ATTACHED: RefCell<Attached> =
        const { RefCell::new(Attached { contexts: Vec::new(), attached: 0 }) };
}

/// The span of the current context once more: plain data, to be read without a borrow and without asking
/// whether the thread is ending. That is most of starting an unsampled span.
struct Current {
    /// By itself, for spans without a parent: one byte is all they read.
    situation: Cell<SituationBit>,
    ids: Cell<Option<Ids>>,
}

impl Current {
    const fn none() -> Self {
        Self { situation: Cell::new(SituationBit::ROOT), ids: Cell::new(None) }
    }

    fn set(&self, span: Option<&SpanContext>) {
        self.situation.set(span.map_or(SituationBit::ROOT, SituationBit::under));
        self.ids.set(span.map(Ids::from));
    }
}

/// The contexts attached on this thread, the current one last.
struct Attached {
    /// Each with its number, by which its guard finds it.
    contexts: Vec<(u64, Context)>,
    /// Contexts attached so far.
    attached: u64,
}

impl Attached {
    fn current(&self) -> Option<&Context> {
        self.contexts.last().map(|(_, context)| context)
    }

    fn attach(&mut self, context: Context) -> u64 {
        self.attached += 1;
        CURRENT.with(|current| current.set(context.span()));
        self.contexts.push((self.attached, context));
        self.attached
    }

    fn detach(&mut self, number: u64) {
        // Mostly the last one goes. One that is not there any more went with an earlier one.
        if let Some(at) = self.contexts.iter().rposition(|(attached, _)| *attached == number) {
            self.contexts.truncate(at);
            CURRENT.with(|current| current.set(self.current().and_then(Context::span)));
        }
    }
}

impl Context {
    /// A context without span and baggage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The context attached last on this thread; empty without any.
    #[must_use]
    pub fn current() -> Self {
        let current = ATTACHED.try_with(|attached| attached.try_borrow().ok()?.current().cloned());
        current.ok().flatten().unwrap_or_default()
    }

    /// This context with another span.
    #[must_use]
    pub fn with_span(mut self, span: SpanContext) -> Self {
        self.span = Some(span);
        self
    }

    /// This context with other baggage.
    #[must_use]
    pub fn with_baggage(mut self, baggage: Baggage) -> Self {
        self.baggage = baggage;
        self
    }

    /// The span's ids.
    #[must_use]
    pub fn span(&self) -> Option<&SpanContext> {
        self.span.as_ref()
    }

    /// Whether the caller asked by B3's debug flag that everybody traces this. B3 headers pass it on.
    #[must_use]
    pub fn is_debug(&self) -> bool {
        self.span.as_ref().is_some_and(|span| self.debugged == Some(span.trace_id))
    }

    pub(crate) fn with_debug(mut self, is_debug: bool) -> Self {
        self.debugged = self.span.as_ref().map(|span| span.trace_id).filter(|_| is_debug);
        self
    }

    /// The baggage.
    #[must_use]
    pub fn baggage(&self) -> &Baggage {
        &self.baggage
    }

    /// Makes it the current one of this thread until the guard is dropped.
    ///
    /// Guards may be dropped in any order: one that was attached before takes later ones with it.
    pub fn attach(self) -> ContextGuard {
        let number =
            ATTACHED.try_with(|attached| Some(attached.try_borrow_mut().ok()?.attach(self)));
        // Without the stack, in a destructor of the thread's last moments, nothing is attached.
        ContextGuard { number: number.ok().flatten(), _on_thread: PhantomData }
    }

    /// Reads the W3C headers `traceparent`, `tracestate` and `baggage`; `get` looks one up by its
    /// lower-case name. What is malformed is left out.
    ///
    /// Cost: bounded, however long the headers are.
    pub fn extract<'h>(mut get: impl FnMut(&'static str) -> Option<&'h str>) -> Self {
        Self {
            span: propagation::extract_span_context(&mut get),
            baggage: propagation::extract_baggage(&mut get),
            debugged: None,
        }
    }

    /// Writes the W3C headers `traceparent`, `tracestate` and `baggage`, those that have a value.
    pub fn inject(&self, mut set: impl FnMut(&'static str, &str)) {
        if let Some(span) = &self.span {
            propagation::inject_span_context(span, &mut set);
        }
        propagation::inject_baggage(&self.baggage, &mut set);
    }
}

/// The plain part of a span's context.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids {
    pub(crate) trace_id: TraceId,
    pub(crate) span_id: SpanId,
    pub(crate) flags: TraceFlags,
    pub(crate) is_remote: bool,
}

impl From<&SpanContext> for Ids {
    #[inline]
    fn from(context: &SpanContext) -> Self {
        let SpanContext { trace_id, span_id, flags, is_remote, .. } = *context;
        Self { trace_id, span_id, flags, is_remote }
    }
}

/// The span of the current context.
#[inline]
pub(crate) fn current_ids() -> Option<Ids> {
    CURRENT.with(|current| current.ids.get())
}

/// What the current context means to a sampler.
#[inline]
pub(crate) fn current_situation() -> SituationBit {
    CURRENT.with(|current| current.situation.get())
}

/// Keeps a context attached; dropping it restores the one before.
#[must_use = "the context is detached as soon as the guard is dropped"]
#[derive(Debug)]
pub struct ContextGuard {
    number: Option<u64>,
    /// Belongs to the thread it was made on.
    _on_thread: PhantomData<*const ()>,
}

impl Drop for ContextGuard {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        // No stack means that the thread is ending and nothing is attached any more.
        let _detached = ATTACHED.try_with(|attached| {
            if let Ok(mut attached) = attached.try_borrow_mut() {
                attached.detach(number);
            }
        });
    }
}

/// Runs futures in a context.
///
/// ```no_run
/// # async fn handler(tracer: spanwire_tracer::Tracer) {
/// use spanwire_tracer::InContext;
///
/// let span = tracer.start("checkout");
/// async {
///     // Spans started here, whichever thread polls, are children of `checkout`.
/// }
/// .in_span(span) // ends when the future is ready or dropped
/// .await;
/// # }
/// ```
pub trait InContext: Future + Sized {
    /// Attaches `context` whenever the future is polled.
    fn in_context(self, context: Context) -> WithContext<Self> {
        WithContext { future: self, context, span: None }
    }

    /// Attaches the current context with this span in it, and ends the span with the future.
    fn in_span(self, span: Span) -> WithContext<Self> {
        let context = span.as_current();
        WithContext { future: self, context, span: Some(span) }
    }
}

impl<F: Future> InContext for F {}

pin_project! {
    /// A future that runs in a context; made by [`InContext`].
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct WithContext<F> {
        #[pin]
        future: F,
        context: Context,
        span: Option<Span>,
    }
}

impl<F: Future> Future for WithContext<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _attached = this.context.clone().attach();
        let polled = this.future.poll(cx);
        if polled.is_ready() {
            *this.span = None;
        }
        polled
    }
}
