package replay

import "github.com/fineline-vmm/fineline/coherence/predict"

// Trace is what a guest touches.
type Trace struct {
	Name  string
	Pages uint64     // RAM: pages 0 to Pages-1
	VCPUs [][]uint64 // the pages that each vCPU touches, in its order

	// Content returns what a page holds, for predictors that look; nil stands for nothing.
	Content func(page uint64) []byte
}

// Config is a pager and its link. Times are in steps; the defaults are meant as microseconds.
type Config struct {
	Predictor string
	Window    int // most pages that are asked for beside a missed one

	AccessSteps  int64 // between two touches of a vCPU
	LatencySteps int64 // there and back, without the page
	PageSteps    int64 // to send a page, on each of the two paths below

	// Background sends absent pages on a path of its own, onwards from the last missed page.
	Background bool

	// ShowEvery leaves every so-many-th predicted page unmapped until the guest touches it, which shows
	// the hit and costs the guest MinorSteps; 0 shows none.
	ShowEvery  int
	MinorSteps int64
}

// Default is a link of 10 Gb/s with a round trip of 60 µs and a guest that touches a page every
// 5 µs, slower than the link by a little.
func Default(predictor string) Config {
	return Config{
		Predictor: predictor, Window: 32,
		AccessSteps: 5, LatencySteps: 60, PageSteps: 4, MinorSteps: 5,
	}
}

// Report counts pages, each once. Predicted = Hits + Late + Wasted.
type Report struct {
	WorkingSet int // touched
	Faults     int // of these, waited for on the network: absent, or under way (Late)
	Late       int // predicted, and touched before they arrived
	Predicted  int // fetched because of a prediction
	Hits       int // of these, touched after they had arrived
	Wasted     int // of these, never touched
	Background int // brought by the background copy
	Shown      int // hits that the pager saw

	Steps int64 // until the last vCPU was done
}

// FaultRatio is the network faults as a part of the working set.
func (r *Report) FaultRatio() float64 {
	if r.WorkingSet == 0 {
		return 0
	}
	return float64(r.Faults) / float64(r.WorkingSet)
}

// Run replays the trace.
func Run(c Config, t Trace) (Report, error) {
	p := &pager{Config: c, trace: t, pages: make([]page, t.Pages)}
	options := predict.Options{
		RAM:    []predict.Range{{First: 0, Pages: t.Pages}},
		Wanted: func(page uint64) bool { return p.pages[page].state == absent },
	}
	var err error
	if p.predictor, err = predict.New(c.Predictor, options); err != nil {
		return Report{}, err
	}
	p.run()
	return p.report, nil
}
