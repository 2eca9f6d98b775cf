package view

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

// samplePlot has all there is: rounds, phases, single latencies, and quantiles alone.
func samplePlot() *Plot {
	faults := []float64{5, 95, 100, 105, 110, 700, 2e6}
	return &Plot{Title: `65536 pages, 1 line <"&>`, Moves: []Move{
		{
			Name: "Fineline", TotalMS: 420, DowntimeMS: 6.25,
			Rounds: []Round{
				{StartMS: 2, MS: 300, Bytes: 270 << 20, Pages: 65600, Lines: 65600 * 64},
				{StartMS: 302, MS: 110, Bytes: 2 << 20, Pages: 65000, Lines: 65000},
				{StartMS: 412, MS: 6, Bytes: 90 << 10, Pages: 3000, Lines: 3000, Paused: true},
			},
			Phases: []Phase{{"stop-copy", 4}, {"state", 1.75}, {"commit", 0.5}},
			Marks:  []Mark{{"p50", 120}, {"p99", 410}, {"max", 9000}},
		},
		{
			Name: "QEMU", TotalMS: 850, DowntimeMS: 90,
			Rounds:   []Round{{MS: 500, Bytes: 280 << 20, Pages: 65600, Lines: 65600 * 64}, {StartMS: 760, MS: 90, Bytes: 170 << 20, Pages: 43000, Paused: true}},
			Phases:   []Phase{{"source sends", 89.5}, {"destination starts", 0.5}},
			FaultsUS: faults,
		},
	}}
}

func TestPlot(t *testing.T) {
	got := samplePlot().SVG()
	golden(t, "plot.svg", got)
	for d := xml.NewDecoder(strings.NewReader(got)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("not XML: %v", err)
		}
	}
	if strings.Contains(got, "NaN") || strings.Contains(got, "Inf") {
		t.Error("a place that is no number")
	}
}

// TestPlotOfLittle: what is not there is left out, and divides nothing.
func TestPlotOfLittle(t *testing.T) {
	for _, p := range []Plot{
		{},
		{Moves: []Move{{Name: "x"}}},
		{Moves: []Move{{Rounds: []Round{{}}, Phases: []Phase{{}}, FaultsUS: []float64{0}, Marks: []Mark{{}}}}},
	} {
		if got := p.SVG(); strings.Contains(got, "NaN") || strings.Contains(got, "Inf") {
			t.Errorf("%+v gives\n%s", p, got)
		}
	}
}

func TestRoundStep(t *testing.T) {
	for v, want := range map[float64]float64{0.3: 0.2, 1: 1, 4.9: 2, 7: 5, 84: 50, 250: 200} {
		if got := roundStep(v); got < want*0.999 || got > want*1.001 {
			t.Errorf("roundStep(%v) = %v, want %v", v, got, want)
		}
	}
}
