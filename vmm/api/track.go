package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
)

const (
	defaultWindowMS = 1000
	minWindowMS     = 10
	maxWindowMS     = 3600_000
	lineBytes       = 64

	// maxTracks bounds the streams at once: each looks at what the guest wrote for itself.
	maxTracks = 8
)

// The modes of TrackRequest.
const (
	TrackDiff   = "diff"   // lines whose bytes changed
	TrackStores = "stores" // lines stored to: each store leaves the guest
	TrackHomed  = "homed"  // lines stored to: each access leaves the guest
)

// TrackRequest asks which 64-byte lines the guest writes.
type TrackRequest struct {
	// Ranges of guest memory, whole lines of RAM; none: all RAM, in mode diff only.
	Ranges   []TrackRange `json:"ranges,omitempty"`
	WindowMS int64        `json:"window_ms,omitempty"` // 0: one second
	Windows  int64        `json:"windows,omitempty"`   // 0: until the client leaves or the machine ends
	Mode     string       `json:"mode,omitempty"`      // empty: diff
	// CountBytes counts the bytes that changed, in mode diff. It costs as much memory as is tracked.
	CountBytes bool `json:"count_bytes,omitempty"`
	Detail     bool `json:"detail,omitempty"` // TrackWindow.Detail
}

// TrackRange is a piece of guest memory.
type TrackRange struct {
	Base      uint64 `json:"base"`
	SizeBytes uint64 `json:"size_bytes"`
}

// Validate checks what can be judged without the machine.
func (r TrackRequest) Validate() error {
	for i, g := range r.Ranges {
		if g.SizeBytes == 0 || g.Base%lineBytes != 0 || g.SizeBytes%lineBytes != 0 || g.Base+g.SizeBytes < g.Base {
			return fmt.Errorf("ranges[%d] has base %#x and size_bytes %#x: give whole lines of %d bytes", i, g.Base, g.SizeBytes, lineBytes)
		}
	}
	switch {
	case r.WindowMS != 0 && (r.WindowMS < minWindowMS || r.WindowMS > maxWindowMS):
		return fmt.Errorf("window_ms is %d: choose %d to %d", r.WindowMS, minWindowMS, maxWindowMS)
	case r.Windows < 0:
		return fmt.Errorf("windows is %d: choose how many, or 0 for no end", r.Windows)
	}
	if err := oneOf("mode", r.Mode, TrackDiff, TrackStores, TrackHomed); err != nil {
		return err
	}
	switch diff := r.Mode == "" || r.Mode == TrackDiff; {
	case !diff && r.CountBytes:
		return fmt.Errorf("count_bytes needs mode %s: mode %s sees stores, not bytes", TrackDiff, r.Mode)
	case !diff && len(r.Ranges) == 0:
		return fmt.Errorf("mode %s needs ranges, of plain data: a guest does not run with all of its memory watched so", r.Mode)
	}
	return nil
}

// withDefaults is r with the defaults written out.
func (r TrackRequest) withDefaults() TrackRequest {
	if r.WindowMS == 0 {
		r.WindowMS = defaultWindowMS
	}
	if r.Mode == "" {
		r.Mode = TrackDiff
	}
	return r
}

// TrackWindow is what was written in one window of time. Times are in milliseconds, StartMS since the
// tracking began. An amplification is the bytes of what holds the written lines over the bytes of these
// lines, nil where no line was written.
type TrackWindow struct {
	Window   int64   `json:"window"` // the first is 0
	StartMS  float64 `json:"start_ms"`
	LengthMS float64 `json:"length_ms"`

	Pages           uint64   `json:"pages"`    // of 4 KiB, with a written line
	Lines           uint64   `json:"lines"`    // written
	Pages2M         uint64   `json:"pages_2m"` // of 2 MiB, with a written line
	Amplification4K *float64 `json:"amplification_4k"`
	Amplification2M *float64 `json:"amplification_2m"`

	// With CountBytes. UncountedPages had no memory for it: their lines are in none of the two numbers.
	ChangedBytes    *uint64  `json:"changed_bytes,omitempty"`
	Amplification64 *float64 `json:"amplification_64,omitempty"`
	UncountedPages  uint64   `json:"uncounted_pages,omitempty"`

	InexactPages uint64  `json:"inexact_pages"` // counted with more lines than were written, perhaps
	HarvestMS    float64 `json:"harvest_ms"`    // what it took to find them

	Detail *TrackDetail `json:"detail,omitempty"`
}

// TrackDetail says where lines were written.
type TrackDetail struct {
	Ranges []TrackRange `json:"ranges"` // sorted, and joined where they meet
	// Buckets are the lines written in each slice of BucketBytes of the ranges, laid end to end.
	BucketBytes uint64   `json:"bucket_bytes"`
	Buckets     []uint32 `json:"buckets"`
	// TopPages have the most written lines, the most first.
	TopPages []TrackPage `json:"top_pages"`
}

// The most that a TrackDetail has.
const (
	MaxTrackBuckets  = 4096
	MaxTrackTopPages = 16
)

// TrackPage is one page with written lines.
type TrackPage struct {
	GPA   uint64   `json:"gpa"`
	Mask  LineMask `json:"mask"`
	Lines int      `json:"lines"`
}

// LineMask has bit i for line i of a page. In JSON it is 16 hexadecimal digits in a string: not every reader
// takes numbers of 64 bits.
type LineMask uint64

// MarshalText implements encoding.TextMarshaler.
func (m LineMask) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(m)), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *LineMask) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(string(text), 16, 64)
	*m = LineMask(v)
	return err
}

// TrackEnd is why a stream of windows has ended. As an error it is what LineWatch.Next returns.
type TrackEnd string

// The ends.
const (
	TrackDone   TrackEnd = "done"   // all windows that were asked for are told
	TrackMoved  TrackEnd = "moved"  // the guest runs in another process now
	TrackEnded  TrackEnd = "ended"  // the guest's run has ended, or its process does
	TrackFailed TrackEnd = "failed" // fault_message says why
)

func (e TrackEnd) Error() string {
	switch e {
	case TrackDone:
		return "all windows are told"
	case TrackMoved:
		return "the machine has moved to another process"
	case TrackEnded:
		return "the machine has ended"
	}
	return "the tracking has failed"
}

// TrackEvent is one line of the stream: a window, or with Final the reason of the end.
type TrackEvent struct {
	Final bool     `json:"final"`
	Ended TrackEnd `json:"ended,omitempty"`
	Fault string   `json:"fault_message,omitempty"`
	*TrackWindow
}

// LineWatch watches lines for one client. One goroutine uses it.
type LineWatch interface {
	// Next returns when the present window is over. A TrackEnd says that there are no more;
	// it is TrackEnded when ctx has ended.
	Next(ctx context.Context) (TrackWindow, error)
	// Close ends the tracking. The machine may have ended.
	Close() error
}

// track answers with a stream of windows.
func (s *Server) track(w http.ResponseWriter, r *http.Request, body []byte) {
	var request TrackRequest
	err := decode(body, &request)
	if err == nil {
		err = request.Validate()
	}
	if err != nil {
		fault(w, err)
		return
	}
	select {
	case s.tracks <- struct{}{}:
		defer func() { <-s.tracks }()
	default:
		fault(w, fmt.Errorf("%d clients track lines already: end one of them", maxTracks))
		return
	}
	request = request.withDefaults()
	watch, err := s.session.ctrl.Track(request)
	if err != nil {
		fault(w, err)
		return
	}
	defer func() {
		if err := watch.Close(); err != nil {
			s.cfg.Log.WithError(err).Warn("end the tracking of lines")
		}
	}()
	ctx, cancel := s.untilClosing(r.Context())
	defer cancel()
	out, err := s.openStream(w)
	for n, final := int64(0), false; err == nil && !final && r.Context().Err() == nil; n++ {
		ev := TrackEvent{Final: true, Ended: TrackDone}
		if request.Windows == 0 || n < request.Windows {
			ev = nextEvent(ctx, watch)
		}
		final, err = ev.Final, out.send(ev)
	}
}

func nextEvent(ctx context.Context, watch LineWatch) TrackEvent {
	window, err := watch.Next(ctx)
	var end TrackEnd
	switch {
	case err == nil:
		return TrackEvent{TrackWindow: &window}
	case errors.As(err, &end):
		return TrackEvent{Final: true, Ended: end}
	}
	return TrackEvent{Final: true, Ended: TrackFailed, Fault: err.Error()}
}

// untilClosing returns a context that also ends when the server shuts down.
func (s *Server) untilClosing(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	go func() {
		select {
		case <-s.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// send writes v as one line.
func (o *lineStream) send(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return o.write(line)
}
