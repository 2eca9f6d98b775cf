package predict_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/fineline-vmm/fineline/coherence/predict"
)

func everything(uint64) bool { return true }

// newPredictor returns a predictor for RAM of the pages 0 to ram-1.
func newPredictor(t testing.TB, name string, ram uint64, wanted func(uint64) bool) predict.Predictor {
	t.Helper()
	p, err := predict.New(name, predict.Options{RAM: []predict.Range{{First: 0, Pages: ram}}, Wanted: wanted})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// table returns a page-table page whose entries point at the pages: present, writable, user, accessed, dirty.
func table(pages ...uint64) []byte {
	content := make([]byte, 4096)
	for i, page := range pages {
		binary.LittleEndian.PutUint64(content[8*i:], page<<12|0x67)
	}
	return content
}

// tablePage returns a full page-table page with random targets below ram.
func tablePage(random *rand.Rand, ram uint64) []byte {
	pages := make([]uint64, 512)
	for i := range pages {
		pages[i] = random.Uint64N(ram)
	}
	return table(pages...)
}
