// Command controlplane is etcd, kube-apiserver and kubectl in one binary, for tests and the demo.
//
// The name it is called by (a symbolic link) picks the component, so each of them takes exactly the
// flags of its upstream program. It is no distribution: there is no scheduler, controller manager or
// kubelet, so pods are never run.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
)

var components = map[string]func() int{
	"etcd": func() int {
		etcdmain.Main(os.Args)
		return 0
	},
	"kube-apiserver": func() int { return cli.Run(apiserver.NewAPIServerCommand()) },
	"kubectl": func() int {
		// kubectl words and prints its own errors, as upstream's main does.
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			util.CheckErr(err)
		}
		return 0
	},
}

func main() {
	name := filepath.Base(os.Args[0])
	run, known := components[name]
	if !known {
		fmt.Fprintf(os.Stderr, "%s: call this as etcd, kube-apiserver or kubectl\n", name)
		os.Exit(2)
	}
	os.Exit(run())
}
