package migration

const sideEnv = "FINELINE_TEST_SIDE"

func runSide(string) int { return 0 }
