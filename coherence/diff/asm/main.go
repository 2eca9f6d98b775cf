// Command asm writes the assembly of package diff with avo. It is a module of its own, so
// that nobody who builds Fineline needs avo. `go generate` in package diff runs it.
package main

import (
	"flag"
	"fmt"
	"os"

	. "github.com/mmcloughlin/avo/build"
)

func main() {
	level := flag.String("level", "", "the instruction set: avx2 or avx512")
	flag.Parse()
	switch *level {
	case "avx2":
		compareKernels(avx2{}, "AVX2")
		nonZeroKernel()
		copyKernels(avx2{}, "AVX2")
		hashAVX2()
	case "avx512":
		compareKernels(avx512{}, "AVX512")
		copyKernels(avx512{}, "AVX512")
		hashAVX512()
	default:
		fmt.Fprintf(os.Stderr, "-level %q: choose avx2 or avx512\n", *level)
		os.Exit(2)
	}
	Generate()
}
