//go:build !race

package resident

const racing = false
