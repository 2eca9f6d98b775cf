package replay_test

import (
	"fmt"
	"testing"

	"github.com/fineline-vmm/fineline/coherence/predict/replay"
)

func TestTable(t *testing.T) {
	for _, bg := range []int{0, 1, 2} {
		var s string
		s += fmt.Sprintf("\n%-20s", []string{"alone", "background", "show 8", "show 1"}[bg])
		for _, name := range []string{"none", "auto"} {
			s += fmt.Sprintf("%11s", name)
		}
		for _, trace := range replay.Patterns(1) {
			s += fmt.Sprintf("\n%-20s", trace.Name)
			for _, name := range []string{"none", "auto"} {
				c := replay.Default(name)
				c.Background = bg == 1
				if bg == 2 {
					c.ShowEvery = 8
				}
				if bg == 3 {
					c.ShowEvery = 1
				}
				for _, c.Window = range []int{16,32} {
					r, err := replay.Run(c, trace)
					if err != nil {
						t.Fatal(err)
					}
					s += fmt.Sprintf("%6.1f/%-3d%5d", 100*r.FaultRatio(), 100*r.Wasted/max(1, r.Predicted), r.Steps/1000)
				}
			}
		}
		t.Log(s)
	}
}
