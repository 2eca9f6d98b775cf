package replay

import "github.com/fineline-vmm/fineline/coherence/predict"

type state uint8

const (
	absent state = iota
	asked
	present
)

type page struct {
	state     state
	predicted bool  // asked for before the guest wanted it
	unmapped  bool  // the first touch is shown
	touched   bool  // the guest has touched it, or waits for it
	due       int64 // when asked: the step of its arrival
	skip      int   // when not absent: this many pages behind it are not either
}

// pager is the destination, the link and the source in one.
type pager struct {
	Config
	trace     Trace
	predictor predict.Predictor
	pages     []page
	report    Report

	arrivals []uint64 // pages that are asked for, in the order of their arrival
	linkFree int64    // when the source has sent all that was asked for

	cursor         int   // of the background copy
	backgroundDone int64 // the step up to which it has run

	predicted int      // pages, for ShowEvery
	scratch   []uint64 // the predictor's answers
}

type vcpu struct {
	accesses []uint64
	ready    int64
}

func (p *pager) run() {
	var vcpus []*vcpu
	for _, accesses := range p.trace.VCPUs {
		vcpus = append(vcpus, &vcpu{accesses: accesses})
	}
	for {
		var first *vcpu
		for _, v := range vcpus {
			if len(v.accesses) > 0 && (first == nil || v.ready < first.ready) {
				first = v
			}
		}
		if first == nil {
			break
		}
		p.advance(first.ready)
		p.access(first)
		p.report.Steps = max(p.report.Steps, first.ready)
	}
	p.report.Wasted = p.report.Predicted - p.report.Hits - p.report.Late
}

// advance lets arrive what does until now.
func (p *pager) advance(now int64) {
	for len(p.arrivals) > 0 && p.pages[p.arrivals[0]].due <= now {
		p.arrive(p.arrivals[0])
		p.arrivals = p.arrivals[1:]
	}
	for p.Background && p.backgroundDone+p.PageSteps <= now {
		p.backgroundDone += p.PageSteps
		p.push()
	}
}

// push sends the next absent page in the background, from the cursor on and round, if there is one.
func (p *pager) push() {
	at := p.nextAbsent(p.cursor)
	if at == len(p.pages) {
		at = p.nextAbsent(0)
	}
	if at == len(p.pages) {
		p.Background = false
		return
	}
	p.cursor = at + 1
	p.report.Background++
	p.arrive(uint64(at))
}

// nextAbsent returns the first absent page from at on, len(pages) if there is none. Pages never become
// absent again, so what was skipped once stays skipped: the way is halved each time it is gone.
func (p *pager) nextAbsent(at int) int {
	for at < len(p.pages) && p.pages[at].state != absent {
		pg := &p.pages[at]
		if next := at + 1 + pg.skip; next < len(p.pages) && p.pages[next].state != absent {
			pg.skip += 1 + p.pages[next].skip
		}
		at += 1 + pg.skip
	}
	return at
}

func (p *pager) arrive(at uint64) {
	p.pages[at].state = present
	if p.trace.Content != nil {
		if content := p.trace.Content(at); content != nil {
			p.predictor.Arrived(at, content)
		}
	}
}

// access does the vCPU's next access, or sends it to wait.
func (p *pager) access(v *vcpu) {
	at := v.accesses[0]
	if pg := &p.pages[at]; pg.state != present {
		p.fault(at, v.ready)
		v.ready = pg.due
		return
	}
	now := v.ready
	v.ready += p.AccessSteps
	v.accesses = v.accesses[1:]
	pg := &p.pages[at]
	if pg.touched {
		return
	}
	p.touch(pg)
	if !pg.predicted {
		return
	}
	p.report.Hits++
	if pg.unmapped {
		p.report.Shown++
		v.ready += p.MinorSteps
		p.ask(p.predictor.Hit(at, p.scratch[:0], p.Window), now)
	}
}

func (p *pager) touch(pg *page) {
	pg.touched = true
	p.report.WorkingSet++
}

// fault asks for the page and what is predicted with it. Of several vCPUs that wait for one page
// the first is reported, like a pager that is told of a page until it is filled.
func (p *pager) fault(at uint64, now int64) {
	pg := &p.pages[at]
	if pg.touched {
		return
	}
	p.touch(pg)
	p.report.Faults++
	if pg.state == asked {
		p.report.Late++
	} else {
		pg.state = asked
		p.linkFree = max(p.linkFree, now+p.LatencySteps/2) + p.PageSteps
		p.send(at)
	}
	p.cursor = int(at) + 1
	p.ask(p.predictor.Miss(at, p.scratch[:0], p.Window), now)
}

// ask asks for predicted pages, which come in one frame behind all that was asked for before.
func (p *pager) ask(predicted []uint64, now int64) {
	p.scratch = predicted
	p.linkFree = max(p.linkFree, now+p.LatencySteps/2) + p.PageSteps*int64(len(predicted))
	for _, at := range predicted {
		p.predicted++
		p.report.Predicted++
		pg := &p.pages[at]
		pg.state, pg.predicted = asked, true
		pg.unmapped = p.ShowEvery > 0 && p.predicted%p.ShowEvery == 0
		p.send(at)
	}
}

// send lets the page arrive when the link has sent all up to it.
func (p *pager) send(at uint64) {
	p.pages[at].due = p.linkFree + p.LatencySteps - p.LatencySteps/2
	p.arrivals = append(p.arrivals, at)
}
