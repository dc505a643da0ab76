`timescale 1ns / 1ps
// carry_save: ROWS words reduced to fewer of the same sum (modulo 2^BITS) by LEVELS of full adders; combinational.
// docs/rtl.md (Pipeline of a step).
module carry_save #(
    parameter int ROWS   = 3,
    parameter int BITS   = 8,
    parameter int LEVELS = 1,
    parameter int REST   = 2   // rows that LEVELS leave: carry_save_sum's rows_after
) (
    input  logic [ROWS*BITS-1:0] rows,
    output logic [REST*BITS-1:0] rest
);
  // Each level makes two rows of three and passes what is left over.
  function automatic int rows_after(int levels);
    rows_after = ROWS;
    for (int i = 0; i < levels; i++) rows_after = 2 * (rows_after / 3) + rows_after % 3;
  endfunction

  // A signal a row, not one of all rows: simulators take parts of long words apart at each use.
  for (genvar l = 0; l <= LEVELS; l++) begin : level
    localparam int ABOVE = rows_after(l - 1);
    localparam int ADDED = 2 * (ABOVE / 3);
    for (genvar i = 0; i < rows_after(l); i++) begin : row
      logic [BITS-1:0] bits;
      if (l == 0) begin : first
        assign bits = rows[i*BITS+:BITS];
      end else if (i >= ADDED) begin : over
        assign bits = level[l-1].row[ABOVE/3+i].bits;
      end else if (i % 2 == 0) begin : sum
        localparam int OF = 3 * (i / 2);
        assign bits = level[l-1].row[OF].bits ^ level[l-1].row[OF+1].bits ^ level[l-1].row[OF+2].bits;
      end else begin : carry
        localparam int OF = 3 * (i / 2);
        logic [BITS-1:0] a, b, c;
        assign a = level[l-1].row[OF].bits;
        assign b = level[l-1].row[OF+1].bits;
        assign c = level[l-1].row[OF+2].bits;
        assign bits = ((a & b) | (a & c) | (b & c)) << 1;
      end
    end
  end
  for (genvar i = 0; i < REST; i++) begin : out
    assign rest[i*BITS+:BITS] = level[LEVELS].row[i].bits;
  end
endmodule
