package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// sizeBytes is a flag like 512M or 1G; without a suffix it is in bytes.
type sizeBytes uint64

var sizeUnits = []struct {
	suffix string
	shift  uint
}{{"T", 40}, {"G", 30}, {"M", 20}, {"K", 10}}

func (s *sizeBytes) Set(text string) error {
	digits, shift := strings.TrimSuffix(strings.ToUpper(text), "IB"), uint(0)
	for _, u := range sizeUnits {
		if d, ok := strings.CutSuffix(digits, u.suffix); ok {
			digits, shift = d, u.shift
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n > math.MaxUint64>>shift {
		return fmt.Errorf("%q is not a size: write 512M or 1G", text)
	}
	*s = sizeBytes(n << shift)
	return nil
}

func (s *sizeBytes) String() string {
	for _, u := range sizeUnits {
		if n := uint64(*s); n != 0 && n%(1<<u.shift) == 0 {
			return strconv.FormatUint(n>>u.shift, 10) + u.suffix
		}
	}
	return strconv.FormatUint(uint64(*s), 10)
}

func (*sizeBytes) Type() string { return "size" }
