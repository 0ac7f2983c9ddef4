//! A reply as its caller gets it: judged where a proof was asked for, and never able to panic tonic.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf as _;
use http::header::HeaderValue;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::token::{Reason, Refusal};

use super::metadata;
use super::required_proof::{Expected, missing};
use super::status::{refuse_in_full, trailers};

pin_project_lite::pin_project! {
    /// The body of a reply to a call of [`AttachIdentity`](super::AttachIdentity).
    ///
    /// Where a proof was asked for and the headers hold none, the first message is replaced by
    /// `PROOF_MISSING`; only a refusal may do without.
    #[derive(Debug)]
    pub struct ReplyBody<R> {
        #[pin]
        inner: Option<R>,
        trust: Trust,
    }
}

/// The reply's proof held. Found in the extensions of a response.
#[derive(Clone, Copy, Debug)]
pub struct Proved;

/// What is known of who answers.
#[derive(Debug)]
enum Trust {
    /// Nothing, and nothing was asked.
    Unasked,
    /// The proof, which held.
    Proved(HeaderValue),
    /// Nothing yet: the proof was not among the headers, and may still be in the trailers of a
    /// refusal without a message, which a proxy makes of a reply of trailers alone.
    Awaited {
        expected: Box<Expected>,
        refused: bool,
    },
}

/// Judges the headers of a reply, whose details are not broken, and prepares its body to be judged.
pub(super) fn receive<R>(
    expected: Option<Box<Expected>>,
    mut response: Response<R>,
) -> Response<ReplyBody<R>> {
    let Some(expected) = expected else {
        // Whoever finds a proof in the metadata may rely on it: one that nobody judged goes.
        response.headers_mut().remove(metadata::PROOF);
        return response.map(|inner| ReplyBody::new(inner, Trust::Unasked));
    };
    match expected.check(response.headers()) {
        Ok(proof) => {
            response.extensions_mut().insert(Proved);
            response.map(|inner| ReplyBody::new(inner, Trust::Proved(proof)))
        }
        Err(refusal) if refusal.reason == Reason::ProofMissing => {
            match Answer::of(response.headers()) {
                Answer::Ok => ReplyBody::instead(refuse_in_full(&refusal)),
                Answer::Refused => response.map(|inner| ReplyBody::new(inner, Trust::Unasked)),
                Answer::Unknown => {
                    let refused = response.status() != StatusCode::OK;
                    let trust = Trust::Awaited { expected, refused };
                    response.map(|inner| ReplyBody::new(inner, trust))
                }
            }
        }
        Err(refusal) => ReplyBody::instead(refuse_in_full(&refusal)),
    }
}

/// What `grpc-status` says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answer {
    Ok,
    Refused,
    Unknown,
}

impl Answer {
    fn of(headers: &HeaderMap) -> Self {
        match headers.get(Status::GRPC_STATUS) {
            None => Self::Unknown,
            Some(code) if code == "0" => Self::Ok,
            Some(_) => Self::Refused,
        }
    }
}

impl<R> ReplyBody<R> {
    fn new(inner: R, trust: Trust) -> Self {
        let inner = Some(inner);
        Self { inner, trust }
    }

    /// Makes the reply that stands in for one that is not handed over.
    pub(super) fn instead(status: Status) -> Response<Self> {
        let empty = |()| Self {
            inner: None,
            trust: Trust::Unasked,
        };
        status.into_http::<()>().map(empty)
    }
}

impl Trust {
    /// Decides at the end of a reply that began without a proof.
    fn judge_end(&self, trailers: &HeaderMap) -> Result<(), Refusal> {
        let Self::Awaited { expected, refused } = self else {
            return Ok(());
        };
        let refused = match Answer::of(trailers) {
            Answer::Unknown => *refused,
            answer => answer == Answer::Refused,
        };
        match expected.check(trailers) {
            Ok(_proof) => Ok(()),
            Err(refusal) if refusal.reason == Reason::ProofMissing && refused => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }

    /// Leaves a proof in the trailers of a refusal exactly where one held: what
    /// [`is_proved`](super::is_proved) reads.
    fn mark(&self, trailers: &mut HeaderMap) {
        match self {
            Self::Awaited { .. } => {}
            Self::Proved(proof) if Answer::of(trailers) == Answer::Refused => {
                trailers.insert(metadata::PROOF, proof.clone());
            }
            _ => {
                trailers.remove(metadata::PROOF);
            }
        }
    }
}

impl<R: Body> Body for ReplyBody<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let awaited = matches!(this.trust, Trust::Awaited { .. });
        let verdict = match ready!(inner.poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_trailers() {
                Ok(mut trailers) => {
                    metadata::drop_broken_details(&mut trailers);
                    let verdict = this.trust.judge_end(&trailers);
                    this.trust.mark(&mut trailers);
                    verdict.map(|()| Some(Ok(Frame::trailers(trailers))))
                }
                Err(frame) if awaited && frame.data_ref().is_some_and(R::Data::has_remaining) => {
                    Err(missing())
                }
                Err(frame) => Ok(Some(Ok(frame))),
            },
            None if awaited => this
                .trust
                .judge_end(&HeaderMap::new())
                .map(|()| None::<Result<Frame<R::Data>, R::Error>>),
            end => Ok(end),
        };
        Poll::Ready(verdict.unwrap_or_else(|refusal| {
            // Dropping the reply cancels the call.
            this.inner.set(None);
            Some(Ok(Frame::trailers(trailers(&refuse_in_full(&refusal)))))
        }))
    }

    fn is_end_stream(&self) -> bool {
        match (&self.inner, &self.trust) {
            (Some(_), Trust::Awaited { .. }) => false,
            (Some(inner), _) => inner.is_end_stream(),
            (None, _) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.inner, &self.trust) {
            (Some(inner), Trust::Unasked | Trust::Proved(_)) => inner.size_hint(),
            (Some(_), Trust::Awaited { .. }) => SizeHint::default(),
            (None, _) => SizeHint::with_exact(0),
        }
    }
}
