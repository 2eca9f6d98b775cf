package view

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// Plot is a picture of migrations of one guest below each other: what their rounds sent, when; what the downtime was spent
// on; and how long single pages were waited for. All share their scales, so that lengths can be compared.
type Plot struct {
	Title string
	Moves []Move
}

// Move is one migration.
type Move struct {
	Name                string
	TotalMS, DowntimeMS float64
	Rounds              []Round
	Phases              []Phase   // of the downtime, in order
	FaultsUS            []float64 // each page that was waited for
	Marks               []Mark    // where only some of their quantiles are known
}

// Round is one pass over what was dirty.
type Round struct {
	StartMS, MS         float64
	Bytes, Pages, Lines uint64
	Paused              bool // with the guest paused
}

// Phase is a part of the downtime.
type Phase struct {
	Name string
	MS   float64
}

// Mark is a quantile of the latencies.
type Mark struct {
	Name string
	US   float64
}

// The geometry, in SVG's pixels.
const (
	plotWidth    = 860
	plotLeft     = 70 // of what is drawn
	plotSpan     = plotWidth - plotLeft - 30
	roundsHeight = 150
	barHeight    = 22
	faultsHeight = 90
)

// phaseColours go round.
var phaseColours = []string{"#e8a33d", "#d95f5f", "#8f6fc9", "#4f9fd1", "#6fb36f"}

const (
	colourRound, colourPaused = "#4f9fd1", "#d95f5f"
	colourText, colourDim     = "#d6dae0", "#7d8590"
)

// SVG draws it. The same figures give the same bytes.
func (p *Plot) SVG() string {
	c := &canvas{y: 28}
	c.text(plotLeft, c.y, 15, colourText, "start", p.Title)
	c.y += 14
	for _, m := range p.Moves {
		p.drawMove(c, m)
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img" aria-label="%s" font-family="DejaVu Sans, Helvetica, Arial, sans-serif">`+
		"\n"+`<rect width="%[1]d" height="%[2]d" rx="6" fill="#1c1f24"/>`+"\n%[4]s</svg>\n",
		plotWidth, int(c.y)+12, html.EscapeString("Live migration: "+p.Title), c.b.String())
}

func (p *Plot) drawMove(c *canvas, m Move) {
	c.y += 22
	c.text(plotLeft, c.y, 13, colourText, "start", fmt.Sprintf("%s: total %s ms, downtime %s ms", m.Name, short(m.TotalMS), short(m.DowntimeMS)))
	if len(m.Rounds) > 0 {
		p.drawRounds(c, m)
	}
	if len(m.Phases) > 0 {
		p.drawPhases(c, m)
	}
	if len(m.FaultsUS)+len(m.Marks) > 0 {
		p.drawFaults(c, m)
	}
}

// most is the largest of what all migrations have, so that they share a scale.
func (p *Plot) most(of func(Move) float64) float64 {
	var most float64
	for _, m := range p.Moves {
		most = max(most, of(m))
	}
	return max(most, 1e-9) // nothing at all is drawn as nothing
}

// drawRounds draws a bar a round: as wide as its time, as high as the logarithm of its bytes.
func (p *Plot) drawRounds(c *canvas, m Move) {
	end := p.most(func(m Move) float64 {
		last := m.TotalMS
		for _, r := range m.Rounds {
			last = max(last, r.StartMS+r.MS)
		}
		return last
	})
	high := p.most(func(m Move) float64 {
		var most float64
		for _, r := range m.Rounds {
			most = max(most, scale(r.Bytes))
		}
		return most
	})
	top, bottom := c.y+44, c.y+44+roundsHeight
	for i, r := range m.Rounds {
		x, w := plotLeft+plotSpan*r.StartMS/end, max(1, plotSpan*r.MS/end-1)
		h := roundsHeight * scale(r.Bytes) / high
		colour := colourRound
		if r.Paused {
			colour = colourPaused
		}
		c.rect(x, bottom-h, w, h, colour, fmt.Sprintf("round %d: %s, %d pages, %d lines, %s ms", i+1, Bytes(float64(r.Bytes)), r.Pages, r.Lines, short(r.MS)))
		if w >= 74 { // there is room
			c.text(x+3, bottom-h-26, 10, colourText, "start", Bytes(float64(r.Bytes)))
			c.text(x+3, bottom-h-15, 10, colourDim, "start", fmt.Sprintf("%d pages", r.Pages))
			c.text(x+3, bottom-h-4, 10, colourDim, "start", fmt.Sprintf("%d lines", r.Lines))
		}
	}
	for _, bytes := range []float64{1 << 10, 1 << 20, 1 << 30} {
		if at := roundsHeight * scale(uint64(bytes)) / high; at <= roundsHeight {
			c.text(plotLeft-6, bottom-at+4, 10, colourDim, "end", Bytes(bytes))
		}
	}
	c.line(plotLeft, top, plotLeft, bottom)
	c.axis(bottom, end, "ms")
	c.y = bottom + 30
}

// drawPhases draws the downtime as one stacked bar, and names its parts.
func (p *Plot) drawPhases(c *canvas, m Move) {
	longest := p.most(func(m Move) float64 {
		var sum float64
		for _, ph := range m.Phases {
			sum += ph.MS
		}
		return sum
	})
	c.text(plotLeft-6, c.y+15, 10, colourDim, "end", "downtime")
	x, legend := float64(plotLeft), float64(plotLeft)
	for i, ph := range m.Phases {
		colour := phaseColours[i%len(phaseColours)]
		w := plotSpan * ph.MS / longest
		name := fmt.Sprintf("%s %s ms", ph.Name, short(ph.MS))
		c.rect(x, c.y, w, barHeight, colour, name)
		c.rect(legend, c.y+barHeight+6, 9, 9, colour, name)
		c.text(legend+13, c.y+barHeight+15, 10, colourText, "start", name)
		x, legend = x+w, legend+26+6.2*float64(len(name))
	}
	c.y += barHeight + 24
}

// faultBuckets a factor of ten.
const faultBuckets = 10

// drawFaults draws how many pages took how long, by the logarithm of the time, from 10 µs to 1 s.
func (p *Plot) drawFaults(c *canvas, m Move) {
	const decades = 5
	var counts [decades * faultBuckets]int
	for _, us := range m.FaultsUS {
		counts[min(len(counts)-1, max(0, int(faultPlace(us)*faultBuckets)))]++
	}
	most := max(1, slices.Max(counts[:]))
	bottom := c.y + 14 + faultsHeight
	for i, n := range counts {
		if n == 0 {
			continue
		}
		h := max(1, faultsHeight*float64(n)/float64(most))
		const w = plotSpan / float64(len(counts))
		c.rect(plotLeft+w*float64(i), bottom-h, w-1, h, colourRound, fmt.Sprintf("%d pages", n))
	}
	for _, mark := range m.Marks {
		x := plotLeft + plotSpan*min(1, max(0, faultPlace(mark.US)/decades))
		c.rect(x, bottom-faultsHeight, 2, faultsHeight, colourPaused, mark.Name)
		c.text(x+4, bottom-faultsHeight+10, 10, colourText, "start", fmt.Sprintf("%s %s µs", mark.Name, short(mark.US)))
	}
	c.line(plotLeft, bottom, plotLeft+plotSpan, bottom)
	for i, label := range []string{"10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s"} {
		c.text(plotLeft+plotSpan*float64(i)/decades, bottom+13, 10, colourDim, "middle", label)
	}
	title := "waits for a page"
	if n := len(m.FaultsUS); n > 0 {
		title = fmt.Sprintf("waits for %d pages, at most %d in a column", n, most)
	}
	c.text(plotLeft, c.y+8, 10, colourDim, "start", title)
	c.y = bottom + 24
}

// faultPlace is in decades from 10 µs.
func faultPlace(us float64) float64 { return math.Log10(max(us, 1) / 10) }

// short writes three digits.
func short(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// canvas collects elements; y is where the next part begins.
type canvas struct {
	b strings.Builder
	y float64
}

func (c *canvas) rect(x, y, w, h float64, colour, title string) {
	fmt.Fprintf(&c.b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s</title></rect>`+"\n",
		x, y, w, h, colour, html.EscapeString(title))
}

func (c *canvas) text(x, y float64, size int, colour, anchor, text string) {
	fmt.Fprintf(&c.b, `<text x="%.1f" y="%.1f" font-size="%d" fill="%s" text-anchor="%s">%s</text>`+"\n",
		x, y, size, colour, anchor, html.EscapeString(text))
}

func (c *canvas) line(x1, y1, x2, y2 float64) {
	fmt.Fprintf(&c.b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`+"\n", x1, y1, x2, y2, colourDim)
}

// axis draws a scale from 0 to end with four to ten round figures.
func (c *canvas) axis(y, end float64, unit string) {
	c.line(plotLeft, y, plotLeft+plotSpan, y)
	step := roundStep(end / 5)
	for i := 0; float64(i)*step <= end; i++ {
		v := float64(i) * step
		label := short(v)
		if i == 0 {
			label += " " + unit
		}
		c.text(plotLeft+plotSpan*v/end, y+14, 10, colourDim, "middle", label)
	}
}

// roundStep is the next of 1, 2, 5 times a power of ten that is not above v, or just below.
func roundStep(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	switch digit := v / power; {
	case digit >= 5:
		return 5 * power
	case digit >= 2:
		return 2 * power
	}
	return power
}
