package replay_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/coherence/predict/replay"
)

var tableColumns = []string{"none", "sequential", "around", "stride", "majority", "markov", "pagetable", "auto"}

// row measures a line of the table in predict's doc.go.
func row(t *testing.T, trace replay.Trace) []float64 {
	var ratios []float64
	measure := func(c replay.Config) {
		r := run(t, c, trace)
		ratios = append(ratios, 100*r.FaultRatio())
	}
	for _, name := range tableColumns {
		measure(replay.Default(name))
	}
	background, shown := replay.Default("auto"), replay.Default("auto")
	background.Background, shown.ShowEvery = true, 8
	measure(background)
	measure(shown)
	return ratios
}

// TestDocTable: the documented figures are those of today's code, to a point and a half.
func TestDocTable(t *testing.T) {
	doc, err := os.ReadFile("../doc.go")
	if err != nil {
		t.Fatal(err)
	}
	want := "//\t                   none   seq around stride majority markov  ptable   auto | backgr  shown\n"
	_, table, found := strings.Cut(string(doc), want)
	wrong := !found
	for _, trace := range replay.Patterns(seed) {
		ratios := row(t, trace)
		line := fmt.Sprintf("//\t%-18s %4.0f %5.1f %6.1f %6.1f %8.1f %6.1f %7.1f %6.1f | %6.1f %6.1f\n", trace.Name,
			ratios[0], ratios[1], ratios[2], ratios[3], ratios[4], ratios[5], ratios[6], ratios[7], ratios[8], ratios[9])
		want += line
		wrong = wrong || !documented(table, trace.Name, ratios)
	}
	if wrong {
		t.Errorf("the table of doc.go is not what is measured:\n%s", want)
	}
}

func documented(table, name string, ratios []float64) bool {
	_, rest, found := strings.Cut(table, "//\t"+name+" ")
	line, _, _ := strings.Cut(rest, "\n")
	figures := strings.Fields(strings.Replace(line, "|", "", 1))
	if !found || len(figures) != len(ratios) {
		return false
	}
	for i, figure := range figures {
		if got, err := strconv.ParseFloat(figure, 64); err != nil || got < ratios[i]-1.5 || got > ratios[i]+1.5 {
			return false
		}
	}
	return true
}
