package memory

// RangeWords calls fn with every 64 pages of a region that have one in the set, in rising order: bit b of word is the
// page b after the one at base. It is Range for who copies sets: a bitmap of 8 GiB takes microseconds.
func (s *PageSet) RangeWords(fn func(base GPA, word uint64)) {
	for i := range s.layout.spans {
		r := &s.layout.spans[i]
		for w, word := range s.words[r.firstWord : r.firstWord+r.words()] {
			if word != 0 {
				fn(r.Base+GPA(w)*64*PageSize, word)
			}
		}
	}
}
