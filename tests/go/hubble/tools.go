//go:build tools

// What is built of this module's requirements: the hubble program, which tests point at our servers.
package tools

import _ "github.com/cilium/cilium/hubble"
