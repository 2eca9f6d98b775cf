package predict

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// MaxPages is the most pages that one call names; a larger n counts as this.
const MaxPages = 64

// A Predictor learns from what the guest touches and names the pages that it will want next.
// Pages are guest-physical addresses divided by 4096. What a call appends is in RAM, wanted
// (Options), named once, not the page of the call, and best first. Calls must not overlap.
type Predictor interface {
	// Miss says that the guest waits for page, also when it is under way already, and appends
	// to dst at most n pages.
	Miss(page uint64, dst []uint64, n int) []uint64

	// Hit says that the guest has touched a page that was there because it was predicted, and
	// appends to dst at most n pages, to be fetched before anybody waits for them. Only a pager
	// that leaves such pages unmapped sees that; it may show all hits, some or none.
	Hit(page uint64, dst []uint64, n int) []uint64

	// Arrived shows the 4096 bytes of a page that was just stored, whoever asked for it: page
	// tables tell what comes. Content is only lent; any other length is ignored.
	Arrived(page uint64, content []byte)
}

// Range is the pages First to First+Pages-1.
type Range struct{ First, Pages uint64 }

// Options say what there is to predict.
type Options struct {
	// RAM is the guest's memory, at least one range. Pages elsewhere are neither learnt nor named.
	RAM []Range

	// Wanted says whether it is of use to ask for a page of RAM: it is absent, and not under way.
	// It is called up to some hundred times in a call of Miss or Hit, and must not call back.
	// With it a predictor looks past what is there, and knows what cannot miss.
	Wanted func(page uint64) bool
}

// ErrUnknown is the error of New for a name that is none of Names.
var ErrUnknown = errors.New("unknown predictor")

// strategy is a predictor without the promises that every one of them keeps; page is in RAM.
type strategy interface {
	miss(page uint64, out *picker)
	hit(page uint64, out *picker)
	arrived(page uint64, content []byte)
}

var strategies = map[string]func(o *Options) strategy{
	"none":       func(*Options) strategy { return none{} },
	"sequential": newSequential,
	"around":     newAround,
	"stride":     newStride,
	"majority":   newMajority,
	"markov":     newMarkov,
	"pagetable":  newPagetable,
	"auto":       newAuto,
}

// Names returns the names that New knows, sorted.
func Names() []string { return slices.Sorted(maps.Keys(strategies)) }

// New returns a predictor that has seen nothing yet.
func New(name string, o Options) (Predictor, error) {
	build, ok := strategies[name]
	if !ok {
		return nil, fmt.Errorf("%w %q: it is one of %s", ErrUnknown, name, strings.Join(Names(), ", "))
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	o.RAM = slices.Clone(o.RAM)
	return &predictor{strategy: build(&o), out: picker{options: &o}}, nil
}

// maxPage bounds page numbers: 52 bits of physical address, so that sums and differences of
// some pages never overflow.
const maxPage = 1 << 40

func (o *Options) check() error {
	if len(o.RAM) == 0 {
		return errors.New("predict: no RAM")
	}
	if o.Wanted == nil {
		return errors.New("predict: no Wanted")
	}
	for _, r := range o.RAM {
		if r.Pages == 0 || r.Pages > maxPage || r.First > maxPage-r.Pages {
			return fmt.Errorf("predict: RAM of %d pages at page %#x", r.Pages, r.First)
		}
	}
	return nil
}

func (o *Options) inRAM(page uint64) bool {
	for _, r := range o.RAM {
		if page-r.First < r.Pages {
			return true
		}
	}
	return false
}

// wanted says whether a page may be named.
func (o *Options) wanted(page uint64) bool {
	return o.inRAM(page) && o.Wanted(page)
}

// predictor makes a strategy keep the promises of the interface.
type predictor struct {
	strategy strategy
	out      picker
}

func (p *predictor) Miss(page uint64, dst []uint64, n int) []uint64 {
	if !p.out.options.inRAM(page) {
		return dst
	}
	p.out.begin(page, dst, min(n, MaxPages))
	p.strategy.miss(page, &p.out)
	return p.out.take()
}

func (p *predictor) Hit(page uint64, dst []uint64, n int) []uint64 {
	if !p.out.options.inRAM(page) {
		return dst
	}
	p.out.begin(page, dst, min(n, MaxPages))
	p.strategy.hit(page, &p.out)
	return p.out.take()
}

func (p *predictor) Arrived(page uint64, content []byte) {
	if len(content) == pageSize && p.out.options.inRAM(page) {
		p.strategy.arrived(page, content)
	}
}

const pageSize = 4096

// none predicts nothing.
type none struct{}

func (none) miss(uint64, *picker)   {}
func (none) hit(uint64, *picker)    {}
func (none) arrived(uint64, []byte) {}
