package view

import (
	"fmt"
	"html"
	"strings"
)

// Grid is a picture made of characters. It is drawn without a terminal, and shown on one or in a file.
type Grid struct {
	Cols, Rows int
	cells      []gridCell // Rows times Cols
}

type gridCell struct {
	glyph  rune
	colour uint8 // of xterm's 256; 0: as the text around it
}

// NewGrid is filled with blanks.
func NewGrid(cols, rows int) *Grid {
	g := &Grid{Cols: cols, Rows: rows, cells: make([]gridCell, cols*rows)}
	for i := range g.cells {
		g.cells[i].glyph = ' '
	}
	return g
}

// put sets one cell; what is outside is cut off.
func (g *Grid) put(row, col int, glyph rune, colour uint8) {
	if row >= 0 && row < g.Rows && col >= 0 && col < g.Cols {
		g.cells[row*g.Cols+col] = gridCell{glyph, colour}
	}
}

func (g *Grid) text(row, col int, s string) {
	for _, r := range s {
		g.put(row, col, r, 0)
		col++
	}
}

// row is one line without its trailing blanks.
func (g *Grid) row(i int) []gridCell {
	cells := g.cells[i*g.Cols : (i+1)*g.Cols]
	for len(cells) > 0 && cells[len(cells)-1].glyph == ' ' {
		cells = cells[:len(cells)-1]
	}
	return cells
}

// Text is the picture without colours, each line with its newline.
func (g *Grid) Text() string {
	var b strings.Builder
	for i := range g.Rows {
		for _, c := range g.row(i) {
			b.WriteRune(c.glyph)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Frame is what a terminal is sent to show the picture in place of the one before: every line is written
// over, nothing is cleared first, so that nothing flickers. A terminal that knows synchronized output (mode 2026) shows it
// at once; others ignore that.
func (g *Grid) Frame() string {
	var b strings.Builder
	b.WriteString("\x1b[?2026h\x1b[H")
	for i := range g.Rows {
		if i > 0 {
			b.WriteString("\r\n")
		}
		colour := uint8(0)
		for _, c := range g.row(i) {
			if c.colour != colour && c.glyph != ' ' {
				colour = c.colour
				b.WriteString(sgr(colour))
			}
			b.WriteRune(c.glyph)
		}
		if colour != 0 {
			b.WriteString(sgr(0))
		}
		b.WriteString("\x1b[K") // what is left of a longer line
	}
	b.WriteString("\x1b[J\x1b[?2026l")
	return b.String()
}

// sgr selects a foreground colour.
func sgr(colour uint8) string {
	if colour == 0 {
		return "\x1b[m"
	}
	return fmt.Sprintf("\x1b[38;5;%dm", colour)
}

// The metrics of a character in SVG, of the fonts named below at 13 pixels.
const (
	svgCharWidth  = 7.8
	svgLineHeight = 18
	svgMargin     = 16
)

// SVG is the picture as a file: full blocks are rectangles, the rest is text. The label says what it is to
// those who can't see it.
func (g *Grid) SVG(label string) string {
	width := int(float64(g.Cols)*svgCharWidth) + 2*svgMargin
	height := g.Rows*svgLineHeight + 2*svgMargin
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img" aria-label="%s">`+"\n",
		width, height, html.EscapeString(label))
	fmt.Fprintf(&b, `<rect width="%d" height="%d" rx="6" fill="#1c1f24"/>`+"\n", width, height)
	b.WriteString(`<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="13" fill="#d6dae0" xml:space="preserve">` + "\n")
	for i := range g.Rows {
		g.svgRow(&b, i)
	}
	b.WriteString("</g>\n</svg>\n")
	return b.String()
}

// svgRow writes runs of cells that look alike; text breaks at two blanks, since fonts differ in width.
func (g *Grid) svgRow(b *strings.Builder, row int) {
	cells := g.row(row)
	top := svgMargin + row*svgLineHeight
	for from, to := 0, 0; from < len(cells); from = to {
		first := cells[from]
		for to = from + 1; to < len(cells) && alike(first, cells[to]); to++ {
			if first.glyph != fullBlock && cells[to].glyph == ' ' && to+1 < len(cells) && cells[to+1].glyph == ' ' {
				break
			}
		}
		x, run := svgMargin+float64(from)*svgCharWidth, float64(to-from)*svgCharWidth
		switch {
		case first.glyph == fullBlock:
			fmt.Fprintf(b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", x, top+1, run, svgLineHeight-1, hexColour(first.colour))
		case first.glyph != ' ':
			var text strings.Builder
			for _, c := range cells[from:to] {
				text.WriteRune(c.glyph)
			}
			fmt.Fprintf(b, `<text x="%.1f" y="%d" textLength="%.1f">%s</text>`+"\n", x, top+13, run, html.EscapeString(text.String()))
		}
	}
}

// alike says whether two neighbours belong to one run.
func alike(a, b gridCell) bool {
	if a.glyph == fullBlock || b.glyph == fullBlock || a.glyph == ' ' {
		return a == b
	}
	return a.colour == b.colour
}

// hexColour is one of xterm's colours 16 to 255: a cube of 6x6x6, then greys.
func hexColour(c uint8) string {
	if c < 16 {
		return "#d6dae0"
	}
	if c >= 232 {
		v := 8 + 10*int(c-232)
		return fmt.Sprintf("#%02x%02x%02x", v, v, v)
	}
	steps := [...]int{0, 95, 135, 175, 215, 255}
	c -= 16
	return fmt.Sprintf("#%02x%02x%02x", steps[c/36], steps[c/6%6], steps[c%6])
}
