package diff

//go:generate go run -C asm . -level avx2 -out ../avx2_amd64.s -stubs ../avx2_amd64.go -pkg diff
//go:generate go run -C asm . -level avx512 -out ../avx512_amd64.s -stubs ../avx512_amd64.go -pkg diff
