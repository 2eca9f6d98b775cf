package view

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/fineline-vmm/fineline/coherence/diff"
	"github.com/fineline-vmm/fineline/vmm/api"
)

const (
	fullBlock = '█'
	noLines   = '·'

	labelWidth = 13 // of an address and a blank
	maxHistory = 512
)

// Heat levels: level 0 is no line, the last is all of them. In between the scale is logarithmic, since
// one line of a thousand is news.
var (
	shades  = []rune{noLines, '░', '▒', '▓', fullBlock}
	colours = []uint8{236, 54, 90, 126, 162, 203, 214, 227}
	sparks  = []rune("▁▂▃▄▅▆▇█")
)

// Heat is what the live picture of `fineline track` is drawn from.
type Heat struct {
	Mode    string
	Every   time.Duration
	Colour  bool              // else shades
	latest  *api.TrackWindow  // with its detail; nil before the first
	history []api.TrackWindow // the latest last, without details
}

// Add shows one more window.
func (h *Heat) Add(w api.TrackWindow) {
	h.latest = &w
	small := w
	small.Detail = nil
	if h.history = append(h.history, small); len(h.history) > maxHistory {
		h.history = h.history[1:]
	}
}

// Draw makes a picture of the size: the map of memory, the numbers of the window, their history, and the pages
// with the most written lines. What has no room is left out from below.
func (h *Heat) Draw(cols, rows int) *Grid {
	g := NewGrid(max(cols, 1), max(rows, 1))
	if h.latest == nil || h.latest.Detail == nil {
		g.text(0, 0, fmt.Sprintf("fineline track: %s, windows of %v; the first is dropped", h.Mode, h.Every))
		return g
	}
	d := h.latest.Detail
	pages := min(len(d.TopPages), max(0, (g.Rows-10)/3))
	const around = 6 // the title, the legend, and four lines of numbers
	mapRows := max(1, g.Rows-around-pages-min(pages, 1))
	lay := layOut(d, max(1, g.Cols-labelWidth), mapRows)
	g.text(0, 0, fmt.Sprintf("fineline track: %s, windows of %v; %s, %s a cell",
		h.Mode, h.Every, Bytes(float64(lay.sizeBytes)), Bytes(float64(lay.cellBytes))))
	row := h.drawMap(g, 1, lay, d)
	row = h.drawLegend(g, row)
	row = h.drawNumbers(g, row)
	h.drawPages(g, row, d.TopPages[:pages])
	return g
}

// layout is how buckets become cells.
type layout struct {
	perCell   int // buckets
	perRow    int // cells
	cells     int
	sizeBytes uint64 // of all ranges
	cellBytes uint64
}

func layOut(d *api.TrackDetail, cols, rows int) layout {
	n := len(d.Buckets)
	l := layout{perCell: max(1, (n+cols*rows-1)/(cols*rows)), perRow: cols}
	l.cells = (n + l.perCell - 1) / l.perCell
	for _, r := range d.Ranges {
		l.sizeBytes += r.SizeBytes
	}
	l.cellBytes = uint64(l.perCell) * d.BucketBytes
	return l
}

func (h *Heat) drawMap(g *Grid, row int, l layout, d *api.TrackDetail) int {
	for i := range l.cells {
		at, col := row+i/l.perRow, i%l.perRow
		if col == 0 {
			g.text(at, 0, fmt.Sprintf("%12x", addressAt(d.Ranges, uint64(i)*l.cellBytes)))
		}
		lines := uint64(0)
		for _, n := range d.Buckets[i*l.perCell : min((i+1)*l.perCell, len(d.Buckets))] {
			lines += uint64(n)
		}
		size := min(l.cellBytes, l.sizeBytes-uint64(i)*l.cellBytes) // the last may be smaller
		h.drawHeat(g, at, labelWidth+col, lines, size/diff.LineBytes)
	}
	return row + (l.cells+l.perRow-1)/l.perRow
}

// addressAt is the guest address of an offset in the ranges, laid end to end.
func addressAt(ranges []api.TrackRange, offset uint64) uint64 {
	for _, r := range ranges {
		if offset < r.SizeBytes {
			return r.Base + offset
		}
		offset -= r.SizeBytes
	}
	return 0 // past the end: there is no such cell
}

// drawHeat draws one cell with lines written of the most it has.
func (h *Heat) drawHeat(g *Grid, row, col int, lines, most uint64) {
	glyph, colour := h.look(level(lines, most, h.levels()))
	g.put(row, col, glyph, colour)
}

func (h *Heat) levels() int {
	if h.Colour {
		return len(colours)
	}
	return len(shades)
}

func (h *Heat) look(level int) (glyph rune, colour uint8) {
	if h.Colour {
		return fullBlock, colours[level]
	}
	return shades[level], 0
}

// level is 0 for no line, levels-1 for all, and in between by the logarithm.
func level(lines, most uint64, levels int) int {
	switch {
	case lines == 0:
		return 0
	case lines >= most:
		return levels - 1
	}
	part := math.Log2(float64(1+lines)) / math.Log2(float64(1+most))
	return min(levels-2, 1+int(part*float64(levels-2)))
}

func (h *Heat) drawLegend(g *Grid, row int) int {
	g.text(row, 0, fmt.Sprintf("%*s", labelWidth, "no line "))
	for i := range h.levels() {
		glyph, colour := h.look(i)
		g.put(row, labelWidth+i, glyph, colour)
	}
	g.text(row, labelWidth+h.levels()+1, "every line of the cell, by its logarithm")
	return row + 1
}

func (h *Heat) drawNumbers(g *Grid, row int) int {
	w := h.latest
	g.text(row, 0, fmt.Sprintf("window %d  %.2f s long, at %.2f s  pages %d  lines %d  2M pages %d",
		w.Window, w.LengthMS/1000, w.StartMS/1000, w.Pages, w.Lines, w.Pages2M))
	numbers := fmt.Sprintf("amplification  4K %s  2M %s", times(w.Amplification4K), times(w.Amplification2M))
	if w.ChangedBytes != nil {
		numbers += fmt.Sprintf("  64 B %s, %s changed", times(w.Amplification64), Bytes(float64(*w.ChangedBytes)))
	}
	numbers += fmt.Sprintf("  harvest %.1f ms", w.HarvestMS)
	if w.InexactPages > 0 {
		numbers += fmt.Sprintf("  inexact pages %d", w.InexactPages)
	}
	g.text(row+1, 0, numbers)
	h.drawHistory(g, row+2, "lines", func(w api.TrackWindow) float64 { return float64(w.Lines) })
	h.drawHistory(g, row+3, "4K amplif.", func(w api.TrackWindow) float64 {
		if w.Amplification4K == nil {
			return 0
		}
		return *w.Amplification4K
	})
	return row + 4
}

// times is an amplification for people.
func times(a *float64) string {
	if a == nil {
		return "-"
	}
	return strconv.FormatFloat(*a, 'f', 1, 64) + "x"
}

// drawHistory draws one spark a window, the latest at the right end, and the largest value in words.
func (h *Heat) drawHistory(g *Grid, row int, name string, value func(api.TrackWindow) float64) {
	g.text(row, 0, fmt.Sprintf("%*s", labelWidth-1, name))
	width := max(1, g.Cols-labelWidth-16)
	shown := h.history[max(0, len(h.history)-width):]
	largest := 0.0
	for _, w := range shown {
		largest = max(largest, value(w))
	}
	for i, w := range shown {
		if v := value(w); v > 0 {
			g.put(row, labelWidth+i, sparks[min(len(sparks)-1, int(v/largest*float64(len(sparks))))], 0)
		}
	}
	g.text(row, labelWidth+len(shown)+1, "max "+strconv.FormatFloat(math.Round(largest*10)/10, 'f', -1, 64))
}

// drawPages draws the 64 lines of each page as cells.
func (h *Heat) drawPages(g *Grid, row int, pages []api.TrackPage) {
	if len(pages) == 0 {
		return
	}
	g.text(row, 0, fmt.Sprintf("%12s lines 0 to 63", "hottest page"))
	for i, p := range pages {
		at := row + 1 + i
		g.text(at, 0, fmt.Sprintf("%12x", p.GPA))
		for line := range diff.PageLines {
			h.drawHeat(g, at, labelWidth+line, uint64(p.Mask)>>line&1, 1)
		}
		g.text(at, labelWidth+diff.PageLines+1, strconv.Itoa(p.Lines))
	}
}
