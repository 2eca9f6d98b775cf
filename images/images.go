package images

import (
	_ "embed" // the ELF files
	"maps"
	"slices"
)

//go:embed hello/hello.elf
var hello []byte

//go:embed dirty/dirty.elf
var dirty []byte

//go:embed lines/lines.elf
var lines []byte

var builtin = map[string][]byte{
	"hello": hello,
	"dirty": dirty,
	"lines": lines,
}

// Builtin returns the ELF file of the named guest and whether there is one of that name. The bytes are
// the package's own: callers must not write to them.
func Builtin(name string) ([]byte, bool) {
	elf, ok := builtin[name]
	return elf, ok
}

// Names returns the names Builtin knows, sorted.
func Names() []string {
	return slices.Sorted(maps.Keys(builtin))
}
