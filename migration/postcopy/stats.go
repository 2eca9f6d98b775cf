package postcopy

import (
	"sync/atomic"
	"time"
)

// PagerStats is what a Pager has done since it was made.
type PagerStats struct {
	Latency      Latency `json:"latency"`       // of all misses
	AskedLatency Latency `json:"asked_latency"` // of those that were asked for

	Faults        uint64 `json:"faults"`         // pages that somebody waited for and that were asked for
	FaultsLocal   uint64 `json:"faults_local"`   // pages that arrived before they could be asked for
	FaultsCaught  uint64 `json:"faults_caught"`  // of Faults, those that were predicted and on their way
	FaultsStocked uint64 `json:"faults_stocked"` // pages that the background had brought, and that were stored at once

	PagesFault      uint64 `json:"pages_fault"`      // stored because they were asked for after a miss
	PagesPredicted  uint64 `json:"pages_predicted"`  // stored because they were predicted, before anybody waited
	PagesBackground uint64 `json:"pages_background"` // stored from the background
	PagesLate       uint64 `json:"pages_late"`       // dropped: they were there already

	PredictedAsked uint64 `json:"predicted_asked"` // pages asked for because they were predicted
	// PredictedRight and PredictedWrong count the misses that the predictor had named beforehand, and those
	// that it had not: what can be seen of its quality, since the use of a page that is there is not seen.
	PredictedRight uint64 `json:"predicted_right"`
	PredictedWrong uint64 `json:"predicted_wrong"`

	Bytes uint64 `json:"bytes"` // frames of pages as they came, headers included

	Lines LineStats `json:"lines"` // zero without a LineMemory
}

// LineStats is what a Pager of a LineMemory has done for guest CPUs that wait for lines; the rest of PagerStats is about
// whoever waits for pages.
type LineStats struct {
	Faults    uint64 `json:"faults"`     // lines that were waited for and asked for
	Filled    uint64 `json:"filled"`     // of them, those that were the first to bring the line
	Late      uint64 `json:"late"`       // and those that came after the page
	Bytes     uint64 `json:"bytes"`      // of the answers, headers included
	PagesRest uint64 `json:"pages_rest"` // pages stored of which a line was waited for

	Latency Latency `json:"latency"` // from the miss of a line to the line in place
	// RestLatency is from the first miss in a page to all of the page in place, which is what a pager of pages waits for at least.
	RestLatency Latency `json:"rest_latency"`
}

// Latency is the distribution of the times from the instant at which a miss was seen here to that at which the
// page was in place.
type Latency struct {
	Count uint64        `json:"count"`
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
	Max   time.Duration `json:"max_ns"`
	// Buckets ascend by UpTo; none is empty, and they are at most wire.MaxFaultBuckets.
	Buckets []LatencyBucket `json:"buckets"`
}

// LatencyBucket counts the times of at most UpTo, and more than the bucket before.
type LatencyBucket struct {
	UpTo  time.Duration `json:"up_to_ns"`
	Count uint64        `json:"count"`
}

type pagerCounters struct {
	faults, local, caught, stocked        atomic.Uint64
	fault, predicted, background, late    atomic.Uint64
	predictedAsked                        atomic.Uint64
	predictedRight, predictedWrong, bytes atomic.Uint64

	lineFaults, lineFills, linesLate, lineBytes, rest atomic.Uint64
}
