"""The PE in SystemVerilog, written for one machine and scheme, with a testbench made from a layer's tile."""
